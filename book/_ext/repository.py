"""Links to the public repository, in builds that know one: BOOK_REPOSITORY=URL, BOOK_BRANCH=main.

Without it no page shows a repository or Colab button, since a button that leads nowhere is worse than none.
"""

import os


def add_links(app, config):
    """Fill the theme's repository options from the environment."""
    url = os.environ.get("BOOK_REPOSITORY")
    if url:
        config.html_theme_options.update(
            repository_url=url.rstrip("/"),
            repository_branch=os.environ.get("BOOK_BRANCH", "main"),
            path_to_docs="",
            use_repository_button=True,
            launch_buttons={"colab_url": "https://colab.research.google.com"},
        )


def setup(app):
    """Run before the theme reads its options."""
    app.connect("config-inited", add_links, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
