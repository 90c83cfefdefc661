"""Every figure of the book, from a table or arrays to an Axes; nothing is computed here."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

# Okabe & Ito's palette: told apart with every common colour vision.
BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442",
)  # fmt: skip
INK, GREY, FAINT = "#222222", "#8A8A8A", "#D9D9D9"
PALETTE = (BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW)


def use_style():
    """Set the book's look: white and opaque, so that dark pages show it unchanged."""
    sns.set_theme(context="notebook", style="ticks", palette=PALETTE, font_scale=0.9)
    mpl.rcParams.update(
        {
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "figure.dpi": 110,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "legend.frameon": False,
        }
    )


def panels(columns, rows=1, width=3.4, height=3.2, **options):
    """A figure with a grid of Axes, for a cell to end with: the figure and the flat array of Axes."""
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False, **options
    )
    plt.close(figure)  # or every cell that draws would show it, whether it names it or not
    return figure, axes.ravel()


def neighborhood(ax, points, query, near, kept, walls=None, title=""):
    """A query in the plane with its candidates ``near`` and, of these, the ``kept`` ones.

    ``walls``: (x, y, inside) grid of the region that the kept neighbours enclose, shaded.
    """
    if walls is not None:
        ax.contourf(*walls, levels=[0.5, 1.5], colors=[SKY], alpha=0.25, zorder=0)
        ax.contour(*walls, levels=[0.5], colors=[SKY], linewidths=1, zorder=1)
    ax.scatter(*points.T, s=12, color=FAINT, zorder=1)
    dropped = np.setdiff1d(near, kept)
    ax.scatter(*points[dropped].T, s=22, facecolor="white", edgecolor=GREY, zorder=3, label="dropped")
    for i in kept:
        ax.plot(*points[[query, i]].T, color=BLUE, lw=1.4, zorder=2)
    ax.scatter(*points[kept].T, s=30, color=BLUE, zorder=4, label="kept")
    ax.scatter(*points[[query]].T, s=70, marker="*", color=RED, zorder=5, label="query")
    ax.set(title=title, aspect="equal", xticks=[], yticks=[])
    sns.despine(ax=ax, left=True, bottom=True)


def lines(ax, table, x, y, by, low=None, high=None, reference=None, legend=True):
    """One line a value of ``by``, in the order of the table, with a band from ``low`` to ``high``."""
    for color, (name, part) in zip(PALETTE, table.groupby(by, sort=False), strict=False):
        part = part.sort_values(x)
        ax.plot(part[x], part[y], color=color, marker="o", ms=4, label=str(name))
        if low is not None:
            ax.fill_between(part[x], part[low], part[high], color=color, alpha=0.18, lw=0)
    if reference is not None:
        ax.plot(*reference[:2], color=GREY, ls="--", lw=1, zorder=0, label=reference[2])
    if legend:
        ax.legend(title=by if isinstance(by, str) else None)


def intervals(ax, table, label, mean="mean", low="low", high="high", color=BLUE, offset=0.0, legend=None):
    """Horizontal intervals, one row of the table a line, in the table's order from the top."""
    y = np.arange(len(table)) + offset
    error = [table[mean] - table[low], table[high] - table[mean]]
    ax.errorbar(table[mean], y, xerr=np.abs(error), fmt="o", ms=5, color=color, capsize=0, lw=2, label=legend)
    ax.set_yticks(np.arange(len(table)), table[label])
    ax.set_ylim(len(table) - 0.5, -0.5)


def slant(ax):
    """Names on the x axis that end under their ticks."""
    plt.setp(ax.get_xticklabels(), rotation=35, ha="right", rotation_mode="anchor")


def models_by_manifold(table, metric, title=None):
    """A metric of every model (rows) on every manifold (columns), as a figure of numbers and colours.

    ``table`` has the columns model, manifold, metric and mean, as `mgmlib.study.results` gives it.
    """
    part = table[table["metric"] == metric]
    grid = part.pivot(index="model", columns="manifold", values="mean")
    grid = grid.reindex(index=part["model"].unique(), columns=part["manifold"].unique())
    figure, (ax,) = panels(1, width=1.6 + 0.9 * grid.shape[1], height=0.9 + 0.27 * grid.shape[0])
    sns.heatmap(grid, annot=True, fmt=".2f", cmap="viridis", cbar=False, annot_kws={"size": 7}, ax=ax)
    ax.set(xlabel="", ylabel="", title=title or metric)
    ax.tick_params(left=False, bottom=False)
    slant(ax)
    return figure


def models_with_intervals(table, manifold, metrics, labels=None):
    """Mean and interval of several metrics on one manifold, one line a model, coloured by paradigm."""
    figure, axes = panels(len(metrics), width=3.2, height=0.9 + 0.24 * table["model"].nunique(), sharey=True)
    colors = dict(zip(table["paradigm"].unique(), PALETTE * 2, strict=False))
    for ax, metric in zip(axes, metrics, strict=True):
        part = table[(table["manifold"] == manifold) & (table["metric"] == metric)].reset_index(drop=True)
        for y, row in part.iterrows():
            ax.plot([row["low"], row["high"]], [y, y], color=colors[row["paradigm"]], lw=2)
            ax.plot(row["mean"], y, "o", color=colors[row["paradigm"]], ms=5)
        ax.set_yticks(range(len(part)), part["model"])
        ax.set(ylim=(len(part) - 0.5, -0.5), xlabel=(labels or {}).get(metric, metric))
    handles = [mpl.lines.Line2D([], [], color=c, marker="o", lw=2, label=p) for p, c in colors.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=8)
    return figure


def mark(figure, text):
    """Write across a figure what it must not be taken for."""
    box = {"facecolor": "white", "edgecolor": RED, "alpha": 0.75, "boxstyle": "round"}
    figure.text(0.5, 0.5, text, fontsize=17, color=RED, rotation=15, ha="center", va="center", bbox=box)
    return figure


def gallery(images, columns, titles=None, frames=None, size=0.9):
    """A grid of (3, H, W) images in [0, 1]; ``frames`` gives the colour of each frame, or None."""
    rows = -(-len(images) // columns)
    figure, axes = panels(columns, rows, width=size, height=size * (1.22 if titles else 1.0))
    for ax in axes:
        ax.set_axis_off()
    for i, (ax, image) in enumerate(zip(axes, images, strict=False)):
        ax.set_axis_on()
        ax.imshow(np.moveaxis(np.asarray(image), 0, -1).clip(0, 1), interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set(visible=bool(frames and frames[i]), color=frames[i] if frames else None, linewidth=2.5)
        if titles:
            ax.set_title(titles[i], fontsize=7, fontweight="normal", loc="center", pad=2)
    return figure


def heatmaps(grids, titles, fmt=".2f", **options):
    """Tables of numbers side by side, each with colours of its own scale, the rows shared."""
    rows, columns = next(iter(grids)).shape
    figure, axes = panels(len(grids), width=0.5 + 0.4 * columns, height=0.9 + 0.25 * rows, sharey=True)
    for ax, grid, title in zip(axes, grids, titles, strict=True):
        sns.heatmap(grid, annot=True, fmt=fmt, cbar=False, annot_kws={"size": 7}, ax=ax, **options)
        ax.set(xlabel="", ylabel="", title=title)
        ax.tick_params(left=False, bottom=False)
        slant(ax)
    return figure


def shares(ax, table):
    """Rows of shares that sum to one, as stacked bars from the top; a legend above."""
    left = np.zeros(len(table))
    for color, (name, values) in zip((BLUE, ORANGE, GREEN, PINK, FAINT), table.items(), strict=False):
        values = values.fillna(0).to_numpy()
        ax.barh(np.arange(len(table)), values, left=left, color=color, label=name, height=0.8)
        left += values
    ax.set_yticks(np.arange(len(table)), table.index)
    ax.set(xlim=(0, 1), ylim=(len(table) - 0.5, -0.5), xlabel="share of the variance")
    ax.legend(ncols=len(table.columns), loc="lower left", bbox_to_anchor=(0, 1), fontsize=8, columnspacing=1)


def dendrogram(ax, linkage, names, support, colors):
    """A tree with its leaves at the right, names in ``colors``, and the support of each merge in percent."""
    from scipy.cluster import hierarchy

    drawn = hierarchy.dendrogram(
        linkage, labels=list(names), orientation="left", ax=ax, color_threshold=0, above_threshold_color=GREY
    )
    heights = {round(height, 9): share for height, share in zip(linkage[:, 2], support, strict=True)}
    for y, x in zip(drawn["icoord"], drawn["dcoord"], strict=True):
        share = heights[round(x[1], 9)]
        ax.text(x[1], (y[1] + y[2]) / 2, f"{100 * share:.0f}", fontsize=7, ha="left", va="center", color=INK)
    by_name = dict(zip(names, colors, strict=True))
    for label in ax.get_yticklabels():
        label.set_color(by_name[label.get_text()])
    sns.despine(ax=ax, left=True)
    ax.set(xlabel="distance at the merge (Ward)")


def biplot(ax, scores, names, colors, loadings, labels, shares_of_variance):
    """Models in the plane of the first two principal components, and the features that span it as arrows."""
    from adjustText import adjust_text

    ax.axhline(0, color=FAINT, lw=0.8, zorder=0)
    ax.axvline(0, color=FAINT, lw=0.8, zorder=0)
    tips = loadings * (np.abs(scores).max(0) / np.abs(loadings).max(0)).min()
    for tip in tips:
        ax.annotate("", tip, (0, 0), arrowprops={"arrowstyle": "->", "color": GREY, "lw": 1})
    ax.scatter(*scores.T, c=colors, s=36)
    ax.plot(*tips.T, ls="")  # the axes reach as far as the arrows
    ax.margins(0.12)
    ax.set(
        xlabel=f"PC 1 ({100 * shares_of_variance[0]:.0f} % of the variance)",
        ylabel=f"PC 2 ({100 * shares_of_variance[1]:.0f} %)",
    )
    texts = [
        ax.text(*point, name, fontsize=8, color=color)
        for point, name, color in zip(scores, names, colors, strict=True)
    ]
    texts += [ax.text(*tip, label, fontsize=7, color=GREY) for tip, label in zip(tips, labels, strict=True)]
    adjust_text(texts, *np.concatenate([scores, tips]).T, ax=ax, expand=(1.3, 1.8), iter_lim=500)


def clustered(table, linkage, colors):
    """Rows of z-scores in the order of a tree, names coloured, columns clustered on their own: a figure."""
    with mpl.rc_context({"figure.constrained_layout.use": False}):  # seaborn lays this figure out itself
        grid = sns.clustermap(
            table,
            row_linkage=linkage,
            row_colors=list(colors),
            cmap="RdBu_r",
            center=0,
            xticklabels=True,
            yticklabels=True,
            figsize=(2.5 + 0.24 * table.shape[1], 3.2 + 0.26 * len(table)),
            dendrogram_ratio=(0.12, 0.12),
            vmin=-2.5,
            vmax=2.5,
            cbar_pos=None,
        )
    grid.ax_heatmap.set(xlabel="", ylabel="")
    grid.ax_heatmap.tick_params(labelsize=8)
    plt.close(grid.figure)
    return grid.figure


def legend_of(figure, colors, **options):
    """A legend of names and their colours outside a figure."""
    handles = [mpl.lines.Line2D([], [], color=c, marker="o", ls="", label=name) for name, c in colors.items()]
    place = {"loc": "outside upper center", "ncols": 3, "fontsize": 8} | options
    figure.legend(handles=handles, **place)
