"""`python -m frustum` is `frustum`; so `torchrun --nproc-per-node 4 -m frustum train ...` trains on four GPUs."""

from frustum.cli.main import main

if __name__ == "__main__":
    main()
