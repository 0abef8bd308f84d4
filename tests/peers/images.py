"""Compares the image pipeline with torchvision's transforms on Pillow, kind of file by kind.

    images.py PEER_IMAGES

For each kind: the number of files and the largest, over them, of the mean absolute difference in
grey levels (0..255). It must stay below LIMIT for every single image. Real images are taken from the
folder METAMIX_IMAGES, or from photos.tar and clothing.tar in ../shared/data beside the project.
Exit code 77: skipped, with the reason.
"""
import io
import math
import os
import random
import subprocess
import sys
import tarfile
import tempfile

try:
    import numpy as np
    from PIL import Image
    import torch
    from torchvision import transforms
    from torchvision.transforms import functional as F
except ImportError as missing:
    print(f"skipped: {missing}; run scripts/peers.sh")
    sys.exit(77)

LIMIT = 1.0  # grey levels, the mean over an image
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
failures = []


class Peer:
    """peer_images as a function."""

    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def send(self, *words):
        self.process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        self.process.stdin.flush()

    def image(self, *words):
        self.send(*words)
        head = self.process.stdout.readline().decode()
        if not head.startswith("ok "):
            raise ValueError(f"{' '.join(map(str, words))}: {head}")
        n, height, width = map(int, head.split()[1:])
        pixels = self.process.stdout.read(n)
        return np.frombuffer(pixels, np.uint8).reshape(height, width, 3).astype(np.int32)

    def boxes(self, n, height, width):
        self.send("boxes", n, height, width)
        lines = [self.process.stdout.readline() for _ in range(n)]
        return np.array([list(map(int, line.split())) for line in lines])


def difference(a, b):
    assert a.shape == b.shape, (a.shape, b.shape)
    return float(np.abs(a - b).mean())


class Report:
    """Largest difference for each row that is asked for."""

    def __init__(self):
        self.rows = {}

    def add(self, row, value, path):
        n, worst, total = self.rows.get(row, (0, 0.0, 0.0))
        self.rows[row] = (n + 1, max(worst, value), total + value)
        if not value < LIMIT:
            failures.append(f"{row}: {value:.3f} for {path}")

    def show(self):
        print(f"{'':44} {'files':>6} {'largest':>8} {'mean':>8}")
        for row, (n, worst, total) in self.rows.items():
            print(f"{row:44} {n:6} {worst:8.4f} {total / n:8.4f}")


# ---- the files ----


def save(folder, name, image, **options):
    path = os.path.join(folder, name)
    image.save(path, **options)
    return path


def as_named(folder, name, image, form, **options):
    """An image whose name lies about its form."""
    data = io.BytesIO()
    image.save(data, form, **options)
    path = os.path.join(folder, name)
    with open(path, "wb") as file:
        file.write(data.getvalue())
    return path


def jpegs(folder, photo, i):
    cmyk = photo.convert("CMYK")
    black = np.array(cmyk)  # Pillow leaves K empty; a press does not
    black[..., 3] = np.array(photo.convert("L")) // 3
    yield "JPEG grayscale", save(folder, f"gray{i}.jpg", photo.convert("L"), quality=90)
    yield "JPEG CMYK", save(folder, f"cmyk{i}.jpg", cmyk, quality=90)
    yield "JPEG CMYK with black", save(
        folder, f"black{i}.jpg", Image.fromarray(black, "CMYK"), quality=90
    )
    plain = save(folder, f"plain{i}.jpg", Image.fromarray(black, "CMYK"), quality=90)
    with open(plain, "r+b") as file:  # Adobe's segment becomes a comment
        data = file.read()
        file.seek(data.index(b"\xff\xee") + 1)
        file.write(b"\xfe")
    yield "JPEG CMYK without Adobe's mark", plain
    yield "JPEG progressive", save(folder, f"prog{i}.jpg", photo, quality=85, progressive=True)
    for sampling, name in enumerate(["4:4:4", "4:2:2", "4:2:0"]):
        yield f"JPEG {name}", save(
            folder, f"sub{sampling}{i}.jpg", photo, quality=80, subsampling=sampling
        )
    turned = photo.transpose(Image.Transpose.ROTATE_90)
    yield "JPEG 4:4:0 (4:2:2 turned)", save(folder, f"turn{i}.jpg", turned, subsampling=1)
    exif = Image.Exif()
    exif[0x0112] = 6
    yield "JPEG with an orientation", save(folder, f"exif{i}.jpg", photo, exif=exif)


def pngs(folder, photo, i):
    alpha = photo.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(photo.size))
    gray16 = np.array(photo.convert("I")).astype(np.uint16) * 257
    yield "PNG named .JPEG", as_named(folder, f"png{i}.JPEG", photo, "PNG")
    yield "PNG grayscale", save(folder, f"gray{i}.png", photo.convert("L"))
    yield "PNG palette", save(folder, f"palette{i}.png", photo.quantize(64))
    yield "PNG one bit", save(folder, f"bit{i}.png", photo.convert("1"))
    yield "PNG alpha", save(folder, f"alpha{i}.png", alpha)
    yield "PNG gray and alpha", save(folder, f"la{i}.png", alpha.convert("LA"))
    yield "PNG 16 bit gray", save(folder, f"gray16{i}.png", Image.fromarray(gray16))
    yield "JPEG named .png", as_named(folder, f"jpeg{i}.png", photo, "JPEG")


def odd_sizes(folder, photo):
    for w, h in [(1, 1), (1, 40), (40, 1), (2, 300), (7, 5), (8, 8), (9, 17), (224, 224), (223, 225),
                 (255, 256), (257, 255), (333, 500), (501, 375), (1000, 30)]:
        image = photo.resize((w, h))
        yield "JPEG of odd size", save(folder, f"odd{w}x{h}.jpg", image, quality=90)
        yield "PNG of odd size", save(folder, f"odd{w}x{h}.png", image)


def large(folder, photos):
    """Photos put together, so that the detail of a large one is there too."""
    for i in range(0, len(photos) - 24, 25):
        side = 299
        wall = Image.new("RGB", (5 * side + 2, 5 * side - 3))
        for k, photo in enumerate(photos[i:i + 25]):
            wall.paste(photo.resize((side, side)), (k % 5 * side, k // 5 * side))
        yield "large JPEG, detailed", save(folder, f"wall{i}.jpg", wall, quality=92)
        smooth = photos[i].resize((2304, 1729), Image.Resampling.BICUBIC)
        yield "large JPEG, smooth", save(folder, f"smooth{i}.jpg", smooth, quality=92)
        yield "large JPEG, CMYK", save(folder, f"wallc{i}.jpg", wall.convert("CMYK"))
        yield "large JPEG, 4:4:4 grayscale", save(folder, f"wallg{i}.jpg", wall.convert("L"))
    noise = np.random.default_rng(1).integers(0, 256, (1501, 1999, 3), np.uint8)
    yield "large JPEG, noise", save(folder, "noise.jpg", Image.fromarray(noise), quality=95)


def real_images(folder):
    """(kind, path) of the photos that are at hand."""
    given = os.environ.get("METAMIX_IMAGES")
    shared = os.path.join(os.path.dirname(ROOT), "shared", "data")
    if not given:
        for name in ["photos.tar", "clothing.tar"]:
            if not os.path.exists(os.path.join(shared, name)):
                return []
            with tarfile.open(os.path.join(shared, name)) as tar:
                tar.extractall(folder, filter="data")
        given = folder
    paths = []
    for place, _, names in sorted(os.walk(given, followlinks=True)):
        paths += [os.path.join(place, n) for n in sorted(names) if n.lower().endswith("jpg")]
    kinds = {}
    for path in paths:
        kind = os.path.relpath(path, given).split(os.sep)[0]
        kinds.setdefault(kind if kind != os.path.basename(path) else "given", []).append(path)
    return [(f"real: {kind}", p) for kind, all_ in kinds.items()
            for p in random.Random(1).sample(all_, min(len(all_), 100))]


# ---- the comparisons ----


def compare_eval(peer, report, kind, path, image):
    for size, resize in [(224, 256), (224, 232), (192, 192)]:
        theirs = transforms.CenterCrop(size)(transforms.Resize(resize)(image))
        ours = peer.image("eval", size, resize, path)
        report.add(f"{kind}", difference(ours, np.asarray(theirs, np.int32)), path)


def compare_crop(peer, report, kind, path, image):
    torch.manual_seed(len(report.rows))
    for _ in range(3):
        box = transforms.RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3))
        theirs = np.asarray(F.resized_crop(image, *box, [224, 224]), np.int32)
        ours = peer.image("crop", 224, *box, path)
        report.add(f"{kind}: RandomResizedCrop", difference(ours, theirs), path)


def compare_by_rule(peer, report, kind, path, image):
    """The default: an image of the network's size stays, others are 256 for 224."""
    theirs = image
    if image.size != (224, 224):
        theirs = transforms.CenterCrop(224)(transforms.Resize(256)(image))
    report.add("size 224 by rule", difference(peer.image("eval", 224, 0, path),
                                              np.asarray(theirs, np.int32)), path)


def compare_scaled(peer, report, kind, path, image):
    """The largest evaluation size for which the decoder works at 1/2, 1/4, 1/8."""
    for shrink in [2, 4, 8]:
        resize = min(image.size) // (4 * shrink)
        size = resize * 7 // 8
        theirs = np.asarray(transforms.CenterCrop(size)(transforms.Resize(resize)(image)), np.int32)
        ours = peer.image("eval", size, resize, path)
        full = peer.image("eval1", size, resize, path)
        if np.array_equal(ours, full):
            failures.append(f"{path} was not decoded at 1/{shrink}")
        if not np.array_equal(theirs, full):
            failures.append(f"{path}, decoded in full, is not Pillow's")
        report.add(f"{kind}, decoded at 1/{shrink}", difference(ours, theirs), path)


def open_rgb(kind, path):
    """What Pillow makes of it. It clips 16 bits of gray at 255; here they are cut to 8."""
    with Image.open(path) as file:
        if kind == "PNG 16 bit gray":
            file = Image.fromarray((np.asarray(file) >> 8).astype(np.uint8))
        return file.convert("RGB")


def compare(peer, report, kind, path):
    image = open_rgb(kind, path)
    if min(image.size) >= 1024:
        compare_scaled(peer, report, kind, path, image)
    compare_eval(peer, report, kind, path, image)
    compare_crop(peer, report, kind, path, image)
    compare_by_rule(peer, report, kind, path, image)


def box_statistics(boxes, height, width):
    """Means and deviations of relative area, log ratio and relative center."""
    top, left, h, w = np.asarray(boxes, np.float64).T
    columns = [h * w / (height * width), np.log(w / h), (top + h / 2) / height,
               (left + w / 2) / width]
    return np.array([f(c) for c in columns for f in (np.mean, np.std)])


def compare_boxes(peer, n=20000):
    print("\nboxes of RandomResizedCrop: largest difference of mean or deviation")
    for height, width in [(375, 500), (500, 375), (64, 600), (600, 64), (31, 31)]:
        image = Image.new("L", (width, height))
        torch.manual_seed(0)
        theirs = [transforms.RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3))
                  for _ in range(n)]
        ours = peer.boxes(n, height, width)
        apart = float(np.abs(box_statistics(ours, height, width)
                             - box_statistics(theirs, height, width)).max())
        print(f"  {height} x {width}: {apart:.4f}")
        # Deviations are below 0.3: four times the deviation of a difference of two means.
        if not apart < 4 * 0.3 * math.sqrt(2 / n):
            failures.append(f"boxes of {height} x {width}: {apart}")


def photos_of(real):
    if real:
        return [Image.open(p).convert("RGB") for kind, p in real if "clothing" not in kind]
    pixels = np.random.default_rng(2).integers(0, 256, (50, 12, 12, 3), np.uint8)
    return [Image.fromarray(p).resize((299, 299), Image.Resampling.BICUBIC) for p in pixels]


def main():
    peer = Peer(sys.argv[1])
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        real = real_images(folder)
        if not real:
            print("no real images: set METAMIX_IMAGES to a folder of JPEGs; made-up ones only")
        photos = photos_of(real)
        made = [kind for i, photo in enumerate(photos[:8])
                for maker in (jpegs, pngs) for kind in maker(folder, photo, i)]
        made += odd_sizes(folder, photos[0])
        made += large(folder, photos)
        for kind, path in real + made:
            compare(peer, report, kind, path)
    report.show()
    compare_boxes(peer)
    for failure in failures[:20]:
        print("FAILED:", failure)
    print(f"{len(failures)} failures; every difference must stay below {LIMIT} grey levels")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
