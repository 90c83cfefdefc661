"""nbval: warnings and progress bars on stderr depend on the machine; they are neither kept nor compared."""


def pytest_collection_modifyitems(items):
    """Leave stderr out of the comparison of every notebook."""
    for notebook in {item.parent for item in items if hasattr(item.parent, "skip_compare")}:
        notebook.skip_compare += ("stderr",)
