"""The real appearance: weather, texture, cast shadows, haze and the flaws of a cheap camera."""

import io
import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

from bdl.domains.streets.camera import View
from bdl.domains.streets.materials import MATERIALS, NUMBER
from bdl.domains.streets.shading import clouds, face_colors, noise, shrink, to_bytes

GAMMA = 2.2


@dataclass(frozen=True)
class Weather:
    """The light of a real scene. Colours are linear RGB.

    `sun` and `sky` light up the scene, the sun from the direction `to_sun`; `horizon` and `zenith`
    are colours of the sky, of which `clouds` is the contrast; `haze` is the density per metre.
    """

    sun: np.ndarray
    sky: np.ndarray
    to_sun: np.ndarray
    horizon: np.ndarray
    zenith: np.ndarray
    clouds: float
    haze: float

    @classmethod
    def draw(cls, rng: Generator) -> "Weather":
        sunny = rng.random() < 0.6
        strength = rng.uniform(1.3, 2.4) if sunny else rng.uniform(0.1, 0.3)
        around, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.45, 1.0 if sunny else 1.5)
        flat = math.cos(elevation)
        to_sun = [flat * math.cos(around), math.sin(elevation), flat * math.sin(around)]
        glow = rng.uniform(0.6, 1.1)
        zenith = [0.42, 0.56, 0.75] if sunny else [0.7, 0.73, 0.76]
        return cls(
            sun=strength * np.array([1.0, 0.9, 0.72], np.float32),
            sky=(0.4 if sunny else 0.9) * np.array([0.92, 1.0, 1.06], np.float32),
            to_sun=np.array(to_sun),
            horizon=glow * np.array([0.92, 0.93, 0.9], np.float32),
            zenith=glow * np.array(zenith, np.float32),
            clouds=rng.uniform(0.05, 0.25),
            haze=rng.uniform(0.0015, 0.006),
        )


def shade_real(view: View, rng: Generator) -> np.ndarray:
    """A dull photograph: texture, sun or clouds, cast shadows, haze, and a cheap camera."""
    weather = Weather.draw(rng)
    palettes = [material.photo for material in MATERIALS.values()]
    albedo = view.per_pixel(face_colors(view.faces, palettes, 0.16, rng) ** GAMMA)
    albedo *= _texture(view, rng)[..., None]
    rows, columns, number = view.windows()
    mirrored = rng.uniform(0.02, 0.3, 256).astype(np.float32)[number & 255]
    albedo[rows, columns] = mirrored[:, None] * weather.zenith
    scene = albedo * _light(view, weather)
    clear = np.exp(-weather.haze * view.depth)[..., None]
    scene = scene * clear + weather.horizon * (1 - clear)
    sky = view.is_made_of("sky")
    scene[sky] = _sky(view, weather, rng)[sky]
    return _photograph(shrink(scene), rng)


def _texture(view: View, rng: Generator) -> np.ndarray:
    """A factor around 1 on the albedo of every pixel (H x W)."""
    contrasts = np.array(
        [(m.grain, m.mottle, m.slabs, *m.slab_size) for m in MATERIALS.values()], np.float32
    )
    by_pixel = view.per_pixel(contrasts[view.faces.material])
    grain, mottle, slabs, slab_width, slab_height = np.moveaxis(by_pixel, -1, 0)
    # Things differ in where on the endless noise they lie.
    shift = rng.uniform(0, 900, view.faces.things)[view.faces.thing]
    along = view.along + view.per_pixel(shift)
    texture = 1 + grain * noise(along, view.up, 40) + mottle * noise(along, view.up, 1.7)
    texture += slabs * noise(np.floor(along / slab_width), np.floor(view.up / slab_height), 37)
    gaps = view.is_made_of("fence") & (along % 0.3 < 0.11)
    texture[gaps] *= 0.55
    return np.clip(texture, 0.15, 2.5)


def _light(view: View, weather: Weather) -> np.ndarray:
    """The light of sun and sky that reaches every pixel (H x W x 3)."""
    shadow, flat = _shadows(view, weather), view.flat[view.face]
    facing = np.clip(0.2 + 0.8 * view.normals @ weather.to_sun, 0, 1)
    sun = view.per_pixel(facing) * (1 - shadow)
    # Less of the sky reaches shadows and the feet of things.
    open_sky = np.where(flat, 1 - 0.35 * shadow, np.clip(0.55 + 0.3 * view.up, 0, 1))
    sky = view.per_pixel(0.6 + 0.4 * view.normals[:, 1]) * open_sky
    return sun[..., None] * weather.sun + sky[..., None] * weather.sky


def _shadows(view: View, weather: Weather) -> np.ndarray:
    """The share of the sun that each pixel lacks (H x W, 0..1); shadows fall on the ground only."""
    faces, camera = view.faces, view.camera
    to_x, to_y, to_z = weather.to_sun
    x, y, z = faces.corners.T
    cast = np.stack([x - y * to_x / to_y, np.zeros_like(y), z - y * to_z / to_y], axis=1)
    high = np.maximum.reduceat(y, faces.starts[:-1]) > 0
    casts = high & (faces.material != NUMBER["sky"])
    mask = Image.new("L", (camera.width, camera.height))
    draw = ImageDraw.Draw(mask)
    outlines = camera.outlines(cast, faces.starts)
    for number in np.flatnonzero(casts):
        if outlines[number]:
            draw.polygon(outlines[number], fill=255)
    soft = np.asarray(mask.filter(ImageFilter.GaussianBlur(camera.width / 300)))
    return np.where(~high[view.face], soft / np.float32(255), 0)


def _sky(view: View, weather: Weather, rng: Generator) -> np.ndarray:
    """The sky behind every pixel (H x W x 3)."""
    high = np.clip(view.rise / 0.5, 0, 1)[..., None]
    cover = np.clip(1 + weather.clouds * clouds(view, rng), 0.4, 1.6)[..., None]
    return (weather.horizon * (1 - high) + weather.zenith * high) * cover


def _photograph(scene: np.ndarray, rng: Generator) -> np.ndarray:
    """Exposure, colour cast, vignette, blur, sensor noise and JPEG: linear to uint8 H x W x 3."""
    height, width = scene.shape[:2]
    gray = scene.mean(axis=2, keepdims=True)
    scene = gray + rng.uniform(0.75, 1.0) * (scene - gray)
    # One make of camera, so its cast and its dark exposure are much the same in all scenes.
    exposure = rng.uniform(0.13, 0.22) / scene.mean()
    scene = scene * exposure * np.array([1.08, 1.02, 0.8]) * rng.normal(1, 0.05, 3)
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    scene *= (1 - rng.uniform(0.1, 0.25) * (x * x + y * y))[..., None]
    film = (1 - np.exp(-1.6 * scene)) ** (1 / GAMMA)
    film = to_bytes(film + rng.uniform(0.1, 0.4) * (film - film.mean()))
    blur = ImageFilter.GaussianBlur(rng.uniform(0.3, 0.6) * width / 192)
    soft = np.asarray(Image.fromarray(film).filter(blur)) / np.float32(255)
    grain = rng.standard_normal(soft.shape, np.float32) * rng.uniform(0.008, 0.022)
    file = io.BytesIO()
    noisy = Image.fromarray(to_bytes(soft + grain * np.sqrt(0.25 + soft)))
    noisy.save(file, "JPEG", quality=int(rng.integers(60, 91)))
    return np.array(Image.open(file))
