"""Leave-one-out engines and the audit that checks them."""
