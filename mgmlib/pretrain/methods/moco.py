"""MoCo v1 (He et al., arXiv 1911.05722) and v2 (Chen et al., arXiv 2003.04297)."""

from torch import nn

from mgmlib.pretrain.heads import mlp, unit
from mgmlib.pretrain.losses import info_nce
from mgmlib.pretrain.memory import Momentum, Queue
from mgmlib.pretrain.methods.base import Method
from mgmlib.pretrain.parallel import gather
from mgmlib.pretrain.views import View

V1 = View(jitter=(0.4, 0.4, 0.4, 0.4), jitter_p=1)
V2 = View(blur=0.5)


class MoCo(Method):
    """InfoNCE of a query against its key from a momentum twin, and a queue of past keys; linear head."""

    views = (V1, V1)
    layers = 1

    def __init__(self, start, *, tau=0.07, hidden=256, out=128, queue=4096, momentum=0.99):
        super().__init__(start)
        self.tau = tau
        self.online = nn.Sequential(self.backbone, mlp(self.dim, hidden, out, self.layers, norm=False))
        self.twin = Momentum(self.online, momentum)
        self.queue = Queue(queue, out, start.generator)

    def forward(self, views, batch):
        """InfoNCE of the first view against the second's key."""
        query, key = gather(unit(self.online(views[0]))), gather(unit(self.twin(views[1])))
        loss = info_nce(query, key, self.queue.rows(), self.tau)
        self.queue.push(key)
        return loss

    def after_step(self, progress):
        """The twin follows."""
        self.twin.follow(self.online, progress)


class MoCov2(MoCo):
    """MoCo with a two-layer head, and blur."""

    views = (V2, V2)
    layers = 2
