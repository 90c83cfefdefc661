"""InsDis, also NPID (Wu et al., arXiv 1805.01978)."""

import torch

from mgmlib.pretrain.heads import mlp, unit
from mgmlib.pretrain.losses import log_normalizer, nce
from mgmlib.pretrain.memory import Bank
from mgmlib.pretrain.methods.base import Method
from mgmlib.pretrain.parallel import gather
from mgmlib.pretrain.views import View


class InsDis(Method):
    """Each image a class: its feature is told from noise drawn from a bank of all images' features.

    The noise is shared by the batch, one product of matrices, where the published code draws it anew for each
    image; the constant Z is estimated from the first batch, as there.
    """

    views = (View(jitter=(0.4, 0.4, 0.4, 0.4), jitter_p=1),)

    def __init__(
        self, backbone, n_images, n_classes, generator, *, tau=0.07, out=128, noise=4096, momentum=0.5
    ):
        super().__init__(backbone, n_images, n_classes, generator)
        self.tau, self.noise = tau, noise
        self.head = mlp(self.dim, 0, out, layers=1)
        self.bank = Bank(n_images, out, generator, momentum)
        self.register_buffer("log_z", torch.tensor(float("nan")))  # not yet known

    def forward(self, views, batch):
        """NCE of the image's feature; then the bank learns it."""
        feature, index = gather(unit(self.head(self.backbone(views[0])))), gather(batch.index)
        loss = self.nce(feature, index, self.draw_noise(batch.rng))
        self.bank.update(index, feature)
        return loss

    def draw_noise(self, rng):
        """Rows of the bank (m, out), drawn uniformly."""
        return self.bank.rows[torch.randint(self.n_images, (self.noise,), generator=rng, device=rng.device)]

    def nce(self, feature, index, noise):
        """Features (B, out) against their own memories and the noise."""
        if self.log_z.isnan():
            self.log_z.copy_(log_normalizer(feature, noise, self.tau, self.n_images))
        return nce(feature, self.bank.rows[index], noise, self.tau, self.log_z, self.n_images)
