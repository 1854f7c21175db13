"""senet-ablate: the ablation study of "Squeeze-and-Excitation Networks" (arXiv 1709.01507, Tables 10 to 16), rerun."""
