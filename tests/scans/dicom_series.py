"""DICOM series for the tests: written by SimpleITK, edited by pydicom."""

import numpy as np
import pydicom
import SimpleITK as sitk

SHAPE = (7, 5, 6)  # x, y, z


def rotation(*angles):
    return np.array(sitk.Euler3DTransform((0, 0, 0), *angles).GetMatrix()).reshape(3, 3)


#: Directions (LPS) of rows, columns and slices, as SimpleITK takes them: right-handed, as series are.
DIRECTIONS = {
    "axial": np.eye(3),
    "coronal": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "sagittal": np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]]),
    "prone": np.diag([-1.0, -1, 1]),
    "feet first": np.diag([-1.0, 1, -1]),
    "oblique": rotation(0.3, -0.2, 0.5),
    "oblique and prone": rotation(-0.15, 0.4, 2.9),
}


def image_of(directions, spacing=(0.7, 0.8, 2.5), origin=(-101.25, 33.5, -520.75), dtype=np.int16):
    values = (np.arange(np.prod(SHAPE)).reshape(SHAPE[::-1]) * 7 % 3000).astype(dtype)
    image = sitk.GetImageFromArray(values)
    image.SetDirection(np.ravel(directions).tolist())
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    return image


def write_series(folder, image, **tags):
    """Writes a DICOM series with SimpleITK (GDCM), in shuffled order and with misleading names."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    directions = np.reshape(image.GetDirection(), (3, 3))
    common = {
        "0008|0060": "CT",
        "0020|000d": "1.2.826.0.1.3680043.2.1125.1",
        "0020|000e": "1.2.826.0.1.3680043.2.1125.1.1",
        "0020|0052": "1.2.826.0.1.3680043.2.1125.1.2",
        "0020|0037": "\\".join(f"{v:.12g}" for v in directions[:, :2].T.ravel()),
        "0018|0050": f"{image.GetSpacing()[2]:g}",
        "0008|0020": "20200101",  # dates and times that would else differ between files
        "0008|0030": "120000",
        "0008|0021": "20200101",
        "0008|0031": "120000",
        **tags,
    }
    order = np.random.default_rng(0).permutation(image.GetDepth())
    for number, k in enumerate(order.tolist()):
        slice_ = image[:, :, k]
        place = image.TransformIndexToPhysicalPoint((0, 0, k))
        for tag, value in {
            **common,
            "0008|0018": f"1.2.826.0.1.3680043.2.1125.1.3.{k}",
            "0020|0013": str(k + 1),
            "0020|0032": "\\".join(f"{v:.12g}" for v in place),
        }.items():
            slice_.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"IM{number:03d}"))
        writer.SetImageIO("GDCMImageIO")
        writer.Execute(slice_)


def edit(path, **changes):
    data = pydicom.dcmread(path)
    for name, value in changes.items():
        setattr(data, name, value)
    data.save_as(path)


def files_by_position(folder):
    return sorted(folder.iterdir(), key=lambda p: float(pydicom.dcmread(p).ImagePositionPatient[2]))


def edit_all(folder, **changes):
    for path in files_by_position(folder):
        edit(path, **changes)


def add(folder, image, name="second", **tags):
    """Adds a series to a folder, with names of its own."""
    write_series(folder.parent / name, image, **tags)
    for path in files_by_position(folder.parent / name):
        path.rename(folder / f"{name}{path.name}")


def document(path, sop_class, like, **changes):
    """Writes a file of another SOP class, with the patient and study of the file `like`; None deletes."""
    data = pydicom.dcmread(like)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = sop_class
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{len(path.name)}"
    data.SeriesInstanceUID = f"1.2.4.{len(path.name)}"
    for name, value in changes.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    data.save_as(path)


def without_preamble(path):
    """Cuts preamble and meta group, as old archives do."""
    data = path.read_bytes()
    length = int.from_bytes(data[140:144], "little")
    path.write_bytes(data[144 + length :])


def enhanced(folder, path, order=None, **frames):
    """Writes a series as one enhanced file, its frames in another order; None in ``frames`` leaves a group out.

    Args:
      folder: of the series.
      path: of the file.
      order: places of the frames.
      frames: functional group -> function from the header of a slice to its attributes.
    """
    files = files_by_position(folder)
    slices = [pydicom.dcmread(files[k]) for k in (range(len(files)) if order is None else order)]
    data = pydicom.dcmread(files[0])
    groups = {
        "PlanePositionSequence": lambda s: {"ImagePositionPatient": s.ImagePositionPatient},
        "PixelValueTransformationSequence": lambda s: {
            "RescaleSlope": s.get("RescaleSlope", 1),
            "RescaleIntercept": s.get("RescaleIntercept", 0),
            "RescaleType": "HU",
        },
        "FrameContentSequence": lambda s: {"DimensionIndexValues": [1, slices.index(s) + 1]},
        **frames,
    }
    shared = pydicom.Dataset()
    shared.PixelMeasuresSequence = [_item(PixelSpacing=data.PixelSpacing, SliceThickness=data.SliceThickness)]
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=data.ImageOrientationPatient)]
    data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence = [shared], []
    for slice_ in slices:
        frame = pydicom.Dataset()
        for name, stated in groups.items():
            if stated is not None:
                setattr(frame, name, [_item(**stated(slice_))])
        data.PerFrameFunctionalGroupsSequence.append(frame)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(data, name)
    for name in ("RescaleSlope", "RescaleIntercept"):
        if name in data:
            delattr(data, name)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    data.NumberOfFrames, data.PixelData = len(slices), b"".join(s.PixelData for s in slices)
    path.parent.mkdir(exist_ok=True, parents=True)
    data.save_as(path)


def _item(**values):
    item = pydicom.Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return item
