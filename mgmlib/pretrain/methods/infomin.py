"""InfoMin (Tian et al., arXiv 2005.10243), as its authors' code trains the checkpoint."""

from mgmlib.pretrain.heads import Jigsaw, mlp, unit
from mgmlib.pretrain.losses import info_nce
from mgmlib.pretrain.methods.moco import MoCo
from mgmlib.pretrain.parallel import gather
from mgmlib.pretrain.views import View

JITTER = (0.8, 0.8, 0.8, 0.2)
STRONG = View(jitter=JITTER, blur=0.5, randaugment=True)
PUZZLE = View(jitter=JITTER, scale=(0.6, 1), jigsaw=True)


class InfoMin(MoCo):
    """MoCo on views that share less; a jigsaw of the image, which has its own head, finds the same key."""

    views = (STRONG, STRONG, PUZZLE)
    layers = 2

    def __init__(self, start, *, tau=0.15, hidden=256, out=128, queue=4096, momentum=0.99, jigsaw=0.5):
        moco = dict(tau=tau, hidden=hidden, out=out, queue=queue, momentum=momentum)
        super().__init__(start, **moco)
        self.weight = jigsaw
        self.jigsaw = Jigsaw(mlp(self.dim, hidden, out, norm=False), out)

    def forward(self, views, batch):
        """InfoNCE of the first view and of the jigsaw against the second's key; ``jigsaw``: weight of it."""
        query, key = gather(unit(self.online(views[0]))), gather(unit(self.twin(views[1])))
        puzzle = gather(unit(self.jigsaw(self.backbone, views[2])))
        whole, parts = (info_nce(z, key, self.queue.rows(), self.tau) for z in (query, puzzle))
        self.queue.push(key)
        return (1 - self.weight) * whole + self.weight * parts
