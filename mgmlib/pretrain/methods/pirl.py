"""PIRL (Misra & van der Maaten, arXiv 1912.01991)."""

from mgmlib.pretrain.heads import Jigsaw, mlp, unit
from mgmlib.pretrain.methods.insdis import InsDis
from mgmlib.pretrain.parallel import gather
from mgmlib.pretrain.views import View


class PIRL(InsDis):
    """The image and its jigsaw, which has its own head, both find the image's memory."""

    views = (View(gray=0), View(gray=0, scale=(0.6, 1), jigsaw=True))

    def __init__(
        self, start, *, objective="softmax", tau=0.07, out=128, noise=4096, momentum=0.5, jigsaw=0.5
    ):
        insdis = dict(objective=objective, tau=tau, out=out, noise=noise, momentum=momentum)
        super().__init__(start, **insdis)
        self.weight = jigsaw
        self.jigsaw = Jigsaw(mlp(self.dim, 0, out, layers=1), out)

    def forward(self, views, batch):
        """The loss of both on the same noise, ``jigsaw`` the second's weight; the bank learns the first."""
        (image, patches), index = views, gather(batch.index)
        feature = gather(unit(self.head(self.backbone(image))))
        puzzle = gather(unit(self.jigsaw(self.backbone, patches)))
        noise = self.draw_noise(batch.rng)
        whole, parts = (self.recognize(z, index, noise) for z in (feature, puzzle))
        self.bank.update(index, feature)
        return (1 - self.weight) * whole + self.weight * parts
