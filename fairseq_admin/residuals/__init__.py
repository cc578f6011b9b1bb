"""The residual methods, one a file; `fairseq_admin.methods` lists them."""
