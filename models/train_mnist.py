"""Train a small convolutional network on handwritten digits and export it for serving.

    python models/train_mnist.py                 train and evaluate on the first of three splits
    python models/train_mnist.py --export DIR    the same, then save a version for servingd
    python models/train_mnist.py --splits        train and evaluate on all three, print the mean

The digits are scikit-learn's `load_digits`: 1797 real scans of 8x8 pixels, scaled here to the
28x28 of MNIST. The first convolution takes steps of two pixels: pictures that were 8x8 lose nothing
by it, and on two cores an epoch takes a quarter of the time.
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Before TensorFlow comes in: without it every start prints a page about this machine's CPU.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

# The seeds of the three splits. The settings below were chosen on other splits, so none of these
# test scores had a say in them.
SPLITS = (11, 12, 13)
EPOCHS = 20
BATCH_SIZE = 32
LEARNING_RATE = 2e-3


@dataclass(frozen=True, slots=True)
class Digits:
    """One split: float32 images [n, 28, 28, 1] in 0..1, labels as one-hot rows [n, 10]."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load(split: int) -> Digits:
    """Return the digits, a fifth of them (and of each digit) kept aside for the test."""
    digits = load_digits()
    images = tf.image.resize(digits.images[..., np.newaxis] / 16, (28, 28)).numpy()
    labels = keras.utils.to_categorical(digits.target, 10)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels, test_size=0.2, stratify=labels, random_state=split
    )
    return Digits(train_images, train_labels, test_images, test_labels)


def augmented(digits: Digits) -> tf.data.Dataset:
    """Return shuffled training batches; each epoch sees every digit turned and moved a little."""
    augment = keras.Sequential(
        [
            keras.layers.RandomRotation(10 / 360, fill_mode="constant"),
            keras.layers.RandomTranslation(0.05, 0.05, fill_mode="constant"),
            keras.layers.RandomZoom(0.1, fill_mode="constant"),
        ]
    )
    batches = (
        tf.data.Dataset.from_tensor_slices((digits.train_images, digits.train_labels))
        .shuffle(len(digits.train_images))
        .batch(BATCH_SIZE)
    )
    return batches.map(lambda images, labels: (augment(images, training=True), labels)).prefetch(2)


def build() -> keras.Sequential:
    """Return the network, untrained."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(64, 3, strides=2, padding="same", activation="relu"),
            keras.layers.Conv2D(128, 3, padding="same", activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Dropout(0.33),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


def train(
    digits: Digits,
    *,
    seed: int,
    epochs: int = EPOCHS,
    verbose: int = 0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> keras.Sequential:
    """Return the network, trained; the same seed gives the same network on the same machine."""
    keras.utils.set_random_seed(seed)
    batches = augmented(digits)
    model = build()
    # Large steps at first, then ever smaller ones, down to nothing at the last batch.
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, epochs * len(batches))
    model.compile(
        optimizer=keras.optimizers.Adam(schedule),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(batches, epochs=epochs, shuffle=False, verbose=verbose, callbacks=list(callbacks))
    return model


def evaluate(model: keras.Sequential, digits: Digits) -> float:
    """Return the share of the test digits that the network reads correctly."""
    _, accuracy = model.evaluate(digits.test_images, digits.test_labels, verbose=0)
    return float(accuracy)


def predict(model: keras.Sequential, images: np.ndarray) -> np.ndarray:
    """Return the digit the network sees in each image."""
    return np.argmax(model.predict(images, verbose=0), axis=-1)


def save(model: keras.Sequential, folder: Path) -> None:
    """Export a SavedModel: `image` in, `probabilities` and the likeliest `digit` out."""

    def serve(image: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = model(image, training=False)
        return {"probabilities": probabilities, "digit": tf.argmax(probabilities, axis=-1)}

    image = tf.TensorSpec([None, 28, 28, 1], tf.float32, name="image")
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serving_default", serve, input_signature=[image])
    archive.write_out(str(folder), verbose=False)


def compare_splits(epochs: int) -> None:
    """Train once per split and print each test accuracy and their mean."""
    accuracies = []
    for split in SPLITS:
        digits = load(split)
        accuracies.append(evaluate(train(digits, seed=split, epochs=epochs), digits))
        print(f"split {split}: test accuracy {accuracies[-1]:.2%}", flush=True)
    print(f"mean of {len(SPLITS)}: {np.mean(accuracies):.2%}")


def main() -> None:
    """Train, evaluate, predict and save, as the command line says."""
    parser = argparse.ArgumentParser(description="Train the demo model `mnist`.")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--splits", action="store_true", help="print all three splits and the mean")
    parser.add_argument("--export", type=Path, metavar="DIR", help="save the model here")
    args = parser.parse_args()
    if args.export and args.export.exists():
        parser.error(f"{args.export} exists; a version is never written over")
    if args.splits:
        compare_splits(args.epochs)
        return

    digits = load(SPLITS[0])
    model = train(digits, seed=SPLITS[0], epochs=args.epochs, verbose=2)
    print(f"test accuracy {evaluate(model, digits):.2%}")
    print("the first ten test digits read as", predict(model, digits.test_images[:10]))
    print("                      and are    ", np.argmax(digits.test_labels[:10], axis=-1))
    if args.export:
        save(model, args.export)


if __name__ == "__main__":
    main()
