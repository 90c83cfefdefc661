"""Load each script once, and none for live kernels: pages are read offline, a run is made with `make run`.

Extensions add inline scripts twice here (Sphinx keeps them in its registry and in the builder), and a `const`
that is declared twice is an error on every page.
"""


def keep_scripts_once(app, page, template, context, doctree):
    """Drop repeated scripts and those of Thebe from a page, just before it is written."""
    kept = {}
    for script in context.get("script_files", []):
        text = (str(getattr(script, "filename", script)), getattr(script, "attributes", {}).get("body"))
        if "thebe" not in str(text).lower():
            kept.setdefault(text, script)
    context["script_files"] = list(kept.values())


def setup(app):
    """Run after every extension has added its scripts."""
    app.connect("html-page-context", keep_scripts_once, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
