"""InsDis, also NPID (Wu et al., arXiv 1805.01978)."""

import torch

from mgmlib.pretrain.heads import mlp, unit
from mgmlib.pretrain.losses import info_nce, log_normalizer, nce
from mgmlib.pretrain.memory import Bank
from mgmlib.pretrain.methods.base import Method
from mgmlib.pretrain.parallel import gather
from mgmlib.pretrain.views import View


class InsDis(Method):
    """Each image a class: its feature is told from noise drawn from a bank of all images' features.

    ``objective`` is "softmax", cross-entropy among the noise, as in PyContrast, which trained the published
    checkpoint; or "nce", the paper's, with a constant Z that the first batch fixes. The latter needs many
    steps to a pass: from the random bank of the start Z comes out too small for features that all lie close.
    The noise is shared by the batch, one product of matrices; the published codes draw it for each image.
    """

    views = (View(jitter=(0.4, 0.4, 0.4, 0.4), jitter_p=1),)

    def __init__(self, start, *, objective="softmax", tau=0.07, out=128, noise=4096, momentum=0.5):
        super().__init__(start)
        if objective not in ("softmax", "nce"):
            raise ValueError(f"objective={objective!r}: expected 'softmax' or 'nce'")
        self.objective, self.tau, self.noise = objective, tau, noise
        self.head = mlp(self.dim, 0, out, layers=1)
        self.bank = Bank(self.n_images, out, start.generator, momentum)
        self.register_buffer("log_z", torch.tensor(float("inf")))  # not yet known

    def forward(self, views, batch):
        """The loss of the image's feature; then the bank learns it."""
        feature, index = gather(unit(self.head(self.backbone(views[0])))), gather(batch.index)
        loss = self.recognize(feature, index, self.draw_noise(batch.rng))
        self.bank.update(index, feature)
        return loss

    def draw_noise(self, rng):
        """Rows of the bank (m, out), drawn uniformly."""
        return self.bank.rows[torch.randint(self.n_images, (self.noise,), generator=rng, device=rng.device)]

    def recognize(self, feature, index, noise):
        """Features (B, out) against their own memories and the noise."""
        own = self.bank.rows[index]
        if self.objective == "softmax":
            return info_nce(feature, own, noise, self.tau)
        if self.log_z.isinf():
            self.log_z.copy_(log_normalizer(feature, noise, self.tau, self.n_images))
        return nce(feature, own, noise, self.tau, self.log_z, self.n_images)
