"""The image formats that are opened and written, by Pillow's names for them."""

READABLE = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM")
"""What a file may hold, whatever its name says. An MPO is opened as the JPEG it begins with."""

FORMAT_OF_SUFFIX = {
    ".png": "PNG",
    ".apng": "APNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".mpo": "MPO",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".pnm": "PPM",
    ".pbm": "PBM",
}
"""What a name promises. APNG, MPO, GIF and PBM are never written, so such an output gets another suffix."""

SUFFIXES = {
    "PNG": ".png",
    "JPEG": ".jpg",
    "WEBP": ".webp",
    "TIFF": ".tif",
    "BMP": ".bmp",
    "PPM": ".ppm",
}
"""The formats that are written, and the suffix of each."""

RECTIFIED = ".rectified"
"""Stands before the suffix of an output that lies beside its input."""

INSPECTED = ".inspect"
"""Likewise, of a picture that shows what was found in an image."""
