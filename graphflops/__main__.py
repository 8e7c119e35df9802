"""Entry point of ``python -m graphflops``."""

from graphflops.cli import main

if __name__ == "__main__":
    main()
