"""`python -m senet_ablate` is the console command `senet-ablate`."""

from senet_ablate.cli import main

if __name__ == "__main__":  # workers import this file when they start
    main()
