"""SeLa-v2: self-labelling (Asano et al., arXiv 1911.05371) as SwAV's authors train it (arXiv 2006.09882)."""

import torch
from torch import nn

from mgmlib.pretrain.heads import Prototypes, by_size, mlp, unit
from mgmlib.pretrain.losses import sinkhorn, swapped_prediction
from mgmlib.pretrain.memory import Bank
from mgmlib.pretrain.methods.base import Method
from mgmlib.pretrain.methods.swav import MULTICROP
from mgmlib.pretrain.parallel import gather


class SeLav2(Method):
    """Each view predicts the labels of the other full views, which share all images equally among labels.

    The labels are made before each pass, by Sinkhorn-Knopp over the projections of the pass before, for each
    head and full view; in the first pass, over the batch.
    """

    views = MULTICROP

    def __init__(
        self, start, *, tau=0.1, epsilon=0.05, iterations=20, hidden=512, out=128, labels=(300, 300, 300)
    ):
        super().__init__(start)
        self.tau, self.epsilon, self.iterations = tau, epsilon, iterations
        self.online = nn.Sequential(self.backbone, mlp(self.dim, hidden, out))
        self.heads = nn.ModuleList(Prototypes(out, k) for k in labels)
        self.banks = nn.ModuleList(Bank(self.n_images, out, start.generator, momentum=0) for _ in range(2))
        self.register_buffer("labels", torch.full((len(labels), 2, self.n_images), -1))

    @torch.no_grad()
    def start_epoch(self, progress, rng):
        """Label the remembered projections."""
        if progress > 0:
            for head, labels in zip(self.heads, self.labels, strict=True):
                for bank, own in zip(self.banks, labels, strict=True):
                    own.copy_(self.assign(head(bank.rows)))

    def assign(self, scores):
        """Hard labels of Sinkhorn's soft ones."""
        return sinkhorn(scores, self.epsilon, self.iterations).argmax(1)

    def forward(self, views, batch):
        """Swapped prediction of labels, mean over heads; then the banks learn."""
        features = [gather(unit(z)) for z in by_size(self.online, views)]
        index = gather(batch.index)
        losses, first_pass = [], bool(self.labels[0, 0, 0] < 0)
        for head, labels in zip(self.heads, self.labels, strict=True):
            scores = [head(z) for z in features]
            own = [self.assign(s) for s in scores[:2]] if first_pass else labels[:, index]
            losses.append(swapped_prediction(scores, own, self.tau))
        for bank, z in zip(self.banks, features[:2], strict=True):
            bank.update(index, z)
        return sum(losses) / len(losses)

    def after_step(self, progress):
        """Prototypes stay on the sphere."""
        for head in self.heads:
            head.normalize()
