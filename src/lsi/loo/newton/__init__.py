"""`Newton`: leave-one-out optima from one factorisation and low-rank downdates."""
