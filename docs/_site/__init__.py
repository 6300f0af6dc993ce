"""What the documentation site is built by: pages that are run, docstrings that are pages, pictures, references."""
