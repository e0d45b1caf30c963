"""Internal Coherence Maximization (Wen et al. 2025, arXiv 2506.10139) as an HPC batch job."""

__version__ = "0.1.0"
