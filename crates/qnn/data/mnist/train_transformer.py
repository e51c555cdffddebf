"""Train a small transformer encoder on MNIST digits read as sequences of rows.

Each image is 28 tokens of 28 values (pixel / 255). The encoder is that of BERT
(LayerNorm after each residual sum) and so are the names of its weights. Writes

  mnist_transformer.safetensors             the weights, f32
  mnist_transformer_logits_256.safetensors  `logits` f32 (256, 10) for t10k[0:256]

Needs jax, optax, numpy and safetensors.
"""

import argparse
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from safetensors.numpy import save_file

HIDDEN, HEADS, LAYERS, INTERMEDIATE = 64, 4, 2, 256
ROWS, COLUMNS, CLASSES = 28, 28, 10
EPS = 1e-12
TRAIN = 55000  # train[55000:55500] is the calibration set: never trained on


def init(rng):
    """Fresh weights: a flat dict from name to f32 array, as in the file."""
    weights = {}

    def linear(name, outputs, inputs):
        bound = inputs**-0.5
        weights[f"{name}.weight"] = rng.uniform(-bound, bound, (outputs, inputs))
        weights[f"{name}.bias"] = np.zeros(outputs)

    def norm(name):
        weights[f"{name}.weight"] = np.ones(HIDDEN)
        weights[f"{name}.bias"] = np.zeros(HIDDEN)

    linear("embeddings.row", HIDDEN, COLUMNS)
    weights["embeddings.position"] = rng.normal(0, 0.02, (ROWS, HIDDEN))
    norm("embeddings.LayerNorm")
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        for part in ["query", "key", "value"]:
            linear(f"{layer}.attention.self.{part}", HIDDEN, HIDDEN)
        linear(f"{layer}.attention.output.dense", HIDDEN, HIDDEN)
        norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", INTERMEDIATE, HIDDEN)
        linear(f"{layer}.output.dense", HIDDEN, INTERMEDIATE)
        norm(f"{layer}.output.LayerNorm")
    linear("classifier", CLASSES, HIDDEN)
    return {name: jnp.asarray(value, jnp.float32) for name, value in weights.items()}


def forward(w, pixels):
    """(batch, 28, 28) pixels in 0..1 -> logits (batch, 10)"""

    def linear(name, x):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name, x):
        x = x - x.mean(-1, keepdims=True)
        x = x / jnp.sqrt((x * x).mean(-1, keepdims=True) + EPS)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    def heads(x):  # (batch, rows, hidden) -> (batch, heads, rows, hidden / heads)
        return x.reshape(-1, ROWS, HEADS, HIDDEN // HEADS).swapaxes(1, 2)

    x = linear("embeddings.row", pixels) + w["embeddings.position"]
    x = norm("embeddings.LayerNorm", x)
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        q, k, v = (heads(linear(f"{layer}.attention.self.{p}", x)) for p in ["query", "key", "value"])
        scores = q @ k.swapaxes(-1, -2) / (HIDDEN // HEADS) ** 0.5
        context = (jax.nn.softmax(scores) @ v).swapaxes(1, 2).reshape(x.shape)
        x = norm(f"{layer}.attention.output.LayerNorm", x + linear(f"{layer}.attention.output.dense", context))
        inner = jax.nn.gelu(linear(f"{layer}.intermediate.dense", x), approximate=False)
        x = norm(f"{layer}.output.LayerNorm", x + linear(f"{layer}.output.dense", inner))
    return linear("classifier", x.mean(1))


def read_idx(path, dims):
    """The values of an IDX file of u8, in its own shape."""
    data = path.read_bytes()
    if data[:4] != bytes([0, 0, 8, dims]):
        raise SystemExit(f"{path}: not an IDX file of u8 values in {dims} dimension(s)")
    shape = np.frombuffer(data, ">i4", dims, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dims).reshape(shape)


def load(folder, name):
    try:
        images = read_idx(folder / f"{name}-images-idx3-ubyte", 3)
        labels = read_idx(folder / f"{name}-labels-idx1-ubyte", 1)
    except OSError as error:
        raise SystemExit(f"{error.filename}: {error.strerror}")
    return images.astype(np.float32) / 255, labels.astype(np.int32)


def train(weights, images, labels, rng, args):
    steps = -(-len(images) // args.batch)
    schedule = optax.cosine_onecycle_schedule(steps * args.epochs, args.rate)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        # Biases, LayerNorms: no decay.
        optax.adamw(
            schedule,
            weight_decay=args.weight_decay,
            mask={name: value.ndim > 1 for name, value in weights.items()},
        ),
    )

    def loss_of(weights, images, labels):
        return optax.softmax_cross_entropy_with_integer_labels(forward(weights, images), labels).mean()

    @jax.jit
    def update(weights, state, images, labels):
        loss, gradient = jax.value_and_grad(loss_of)(weights, images, labels)
        change, state = optimizer.update(gradient, state, weights)
        return optax.apply_updates(weights, change), state, loss

    state = optimizer.init(weights)
    start = time.time()
    for epoch in range(1, args.epochs + 1):
        order = rng.permutation(len(images))
        total = 0.0
        for step in range(1, steps + 1):
            at = order[(step - 1) * args.batch : step * args.batch]
            weights, state, loss = update(weights, state, images[at], labels[at])
            total += float(loss)
            if step % 50 == 0 or step == steps:
                print(
                    f"epoch {epoch}/{args.epochs}  step {step}/{steps}"
                    f"  loss {total / step:.4f}  {time.time() - start:.0f} s",
                    flush=True,
                )
    return weights


def main():
    parser = argparse.ArgumentParser(
        description="Train a small transformer encoder on MNIST digits read row by row, and write"
        " its weights and its logits for the first 256 test images as safetensors files.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("data", type=Path, help="folder of the four MNIST IDX files, unpacked")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", default=argparse.SUPPRESS,
        help="folder to write to (default: the folder of this script)",
    )
    parser.add_argument("--epochs", type=int, default=8, metavar="N", help="passes over the 55,000 training images")
    parser.add_argument("--batch", type=int, default=128, metavar="N", help="images per step")
    parser.add_argument("--rate", type=float, default=2e-3, metavar="R", help="maximum learning rate")
    parser.add_argument("--weight-decay", type=float, default=0.01, metavar="W", help="weight decay of AdamW")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed of the first weights and of the order")
    args = parser.parse_args()
    out = getattr(args, "out", Path(__file__).parent)

    train_images, train_labels = load(args.data, "train")
    test_images, test_labels = load(args.data, "t10k")
    rng = np.random.default_rng(args.seed)
    weights = init(rng)
    print(f"jax {jax.__version__}, {sum(value.size for value in weights.values()):,} parameters", flush=True)

    weights = train(weights, train_images[:TRAIN], train_labels[:TRAIN], rng, args)

    run = jax.jit(forward)
    logits = np.concatenate([run(weights, test_images[at : at + 500]) for at in range(0, len(test_images), 500)])
    right = logits.argmax(1) == test_labels
    print(f"right: {right[:2500].sum()} of the first 2500 of t10k, {right.sum()} of {len(right)}")
    out.mkdir(parents=True, exist_ok=True)
    for name, tensors in [
        ("mnist_transformer.safetensors", {name: np.asarray(value) for name, value in weights.items()}),
        ("mnist_transformer_logits_256.safetensors", {"logits": logits[:256].copy()}),
    ]:
        save_file(tensors, out / name)
        print(f"wrote {out / name}, {(out / name).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
