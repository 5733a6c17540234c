"""`python -m dsfast`."""

from dsfast.cli.main import main

if __name__ == "__main__":
    main()
