"""Tables of docs/kernels*.md from one run of headway-bench; see analysis/kernel_pages.py."""
