"""Small data and tiny networks for tests, made on the spot."""

import io
import pickle
import tarfile

import numpy as np
from PIL import Image

CIFAR10_NAMES = [b"plane", b"car", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck"]


def pictures(n, side=32, seed=0):
    """Coloured noise around a colour of each of ten classes: `(n, side, side, 3)` and codes."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % 10
    colours = np.random.default_rng(1).integers(40, 215, size=(10, 1, 1, 3))
    noisy = colours[codes] + rng.normal(0, 25, size=(n, side, side, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8), codes


def encoded_image(pixels, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write_tar(path, members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def cifar_archive(folder, n=60, which="cifar10", **replaced):
    """A CIFAR archive in the official format; returns pixels and labels."""
    pixels, codes = pictures(n)
    rows = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).reshape(n, -1)
    if which == "cifar10":
        parts = np.array_split(np.arange(n), 5)
        members = {
            f"cifar-10-batches-py/data_batch_{k + 1}": {
                b"data": rows[part],
                b"labels": codes[part].tolist(),
                b"filenames": [b"x.png"] * len(part),
            }
            for k, part in enumerate(parts)
        }
        members["cifar-10-batches-py/test_batch"] = {b"data": rows[:10], b"labels": codes[:10].tolist()}
        members["cifar-10-batches-py/batches.meta"] = {b"label_names": CIFAR10_NAMES}
        name = "cifar-10-python.tar.gz"
    else:
        batch = {b"data": rows, b"fine_labels": codes.tolist(), b"coarse_labels": [0] * n}
        members = {
            "cifar-100-python/train": batch,
            "cifar-100-python/meta": {b"fine_label_names": [b"fine %d" % k for k in range(100)]},
        }
        name = "cifar-100-python.tar.gz"
    content = {key: pickle.dumps(value, protocol=2) for key, value in members.items()}
    write_tar(folder / name, content | replaced)
    return pixels, codes


def human_file(path, clean, **labels):
    """A file as CIFAR-N's authors wrote theirs: torch.save of a dict of numpy arrays."""
    import torch

    torch.save({"clean_label": clean, **labels}, path)
    return path


def tiny_resnet(folder):
    import torch
    from transformers import ResNetConfig, ResNetModel, ViTImageProcessorPil

    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def tiny_vit(folder):
    import torch
    from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=32, patch_size=16,
    )  # fmt: skip
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "a", "the", "very", "plot"]


def tiny_bert(folder):
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=32,
    )  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def tiny_wav2vec(folder):
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
        conv_stride=(5, 4), conv_kernel=(10, 4), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
        num_feat_extract_layers=2,
    )  # fmt: skip
    Wav2Vec2Model(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(folder)
    return folder
