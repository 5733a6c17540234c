"""The polling design that dsfast replaces, rebuilt from its documented behaviour. README.md says what and why."""
