"""`python -m jobcloud` is the `jobcloud` command."""

from jobcloud.client.cli import main

if __name__ == "__main__":
    main()
