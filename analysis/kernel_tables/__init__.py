"""Tables of docs/results/kernels*.md from one run of headway-bench; see analysis/kernel_pages.py."""
