"""`python -m senet_ablate` is the console command `senet-ablate`."""

from senet_ablate.startup import start

if __name__ == "__main__":  # workers import this file when they start
    start()
