"""`Newton`: the leave-one-out optimum itself, by one factorisation and a low-rank downdate."""
