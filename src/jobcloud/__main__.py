"""`python -m jobcloud` runs the `jobcloud` command."""

from jobcloud.client.cli import main

if __name__ == "__main__":
    main()
