"""Stand-in for Slicer's scripted module ``SampleData``, as far as other modules register data: with Slicer's checks.

From Modules/Scripted/SampleData/SampleData.py of 3D Slicer 5.12. Nothing is downloaded here.
"""

import slicer

_PER_FILE = ("uris", "fileNames", "nodeNames", "loadFiles", "loadFileTypes", "checksums")


class SampleDataSource:
    """One data set. A text as ``uris`` makes every field a list of one; lists have to be of one length; None is no list."""

    def __init__(  # noqa: PLR0917 - Slicer's own signature
        self,
        sampleName=None,
        sampleDescription=None,
        uris=None,
        fileNames=None,
        nodeNames=None,
        checksums=None,
        loadFiles=None,
        customDownloader=None,
        thumbnailFileName=None,
        loadFileTypes=None,
        loadFileProperties=None,
        loadFileType=None,
    ):
        loadFileTypes = _oneOf(loadFileTypes, loadFileType)
        if isinstance(uris, list | tuple):
            if isinstance(loadFileTypes, str) or loadFileTypes is None:
                loadFileTypes = [loadFileTypes] * len(uris)
            nodeNames, loadFiles, checksums = (
                [None] * len(uris) if each is None else each for each in (nodeNames, loadFiles, checksums)
            )
        elif isinstance(uris, str):
            uris, fileNames, nodeNames = [uris], [fileNames], [nodeNames]
            loadFiles, loadFileTypes, checksums = [loadFiles], [loadFileTypes], [checksums]
        self.sampleName = sampleName
        self.sampleDescription = sampleName if sampleDescription is None else sampleDescription
        self.uris, self.fileNames, self.nodeNames = uris, fileNames, nodeNames
        self.loadFiles, self.loadFileTypes, self.checksums = loadFiles, loadFileTypes, checksums
        self.customDownloader, self.thumbnailFileName = customDownloader, thumbnailFileName
        self.loadFileProperties = {} if loadFileProperties is None else loadFileProperties
        lengths = {name: len(getattr(self, name)) for name in _PER_FILE}
        if len(set(lengths.values())) > 1:
            counted = "".join(f"  len({name}): {length}\n" for name, length in lengths.items())
            msg = f"All fields of sample data source must have the same length\n  uris: {uris}\n{counted}"
            raise ValueError(msg)

    def __eq__(self, other):
        return str(self) == str(other)

    __hash__ = None

    def __str__(self):
        common = (
            self.sampleName,
            self.sampleDescription,
            self.thumbnailFileName,
            self.loadFileProperties,
            self.customDownloader,
        )
        files = zip(*(getattr(self, name) for name in _PER_FILE), strict=True)
        return "\n".join(str(each) for each in (common, *files))


class SampleDataLogic:
    """What is registered is kept in ``slicer.modules.sampleDataSources``, by category."""

    @staticmethod
    def registerCustomSampleDataCategory(category, title):
        """What the user reads for a category."""
        if not hasattr(slicer.modules, "sampleDataSourceCategories"):
            slicer.modules.sampleDataSourceCategories = {}
        slicer.modules.sampleDataSourceCategories.setdefault(category, {})["title"] = title

    @staticmethod
    def registerCustomSampleDataSource(  # noqa: PLR0917 - Slicer's own signature
        category="Custom",
        sampleName=None,
        uris=None,
        fileNames=None,
        nodeNames=None,
        customDownloader=None,
        thumbnailFileName=None,
        loadFileTypes=None,
        loadFiles=None,
        loadFileProperties={},  # noqa: B006 - Slicer's own default
        checksums=None,
        loadFileType=None,
    ):
        """Add a data set; the very same one a second time is let pass."""
        loadFileTypes = _oneOf(loadFileTypes, loadFileType)
        sources = SampleDataLogic.sampleDataSourcesByCategory().setdefault(category, [])
        source = SampleDataSource(
            sampleName=sampleName,
            uris=uris,
            fileNames=fileNames,
            nodeNames=nodeNames,
            thumbnailFileName=thumbnailFileName,
            loadFileTypes=loadFileTypes,
            loadFiles=loadFiles,
            loadFileProperties=loadFileProperties,
            checksums=checksums,
            customDownloader=customDownloader,
        )
        if not SampleDataLogic.isSampleDataSourceRegistered(category, source):
            sources.append(source)

    @staticmethod
    def categoryTitle(category):
        """What the user reads for a category."""
        return getattr(slicer.modules, "sampleDataSourceCategories", {}).get(category, {}).get("title", category)

    @staticmethod
    def sampleDataSourcesByCategory(category=None):
        """The data sets of a category, or all of them by category."""
        if not hasattr(slicer.modules, "sampleDataSources"):
            slicer.modules.sampleDataSources = {}
        sources = slicer.modules.sampleDataSources
        return sources if category is None else sources.get(category, [])

    @staticmethod
    def isSampleDataSourceRegistered(category, sampleDataSource):
        """Whether the category has such a data set."""
        if not isinstance(sampleDataSource, SampleDataSource):
            msg = f"unsupported sampleDataSource type '{type(sampleDataSource)}': '{SampleDataSource}' is expected"
            raise TypeError(msg)
        return sampleDataSource in SampleDataLogic.sampleDataSourcesByCategory(category)


class SampleDataWidget:
    """The module's panel: a button for each data set."""

    @staticmethod
    def setCategoriesFromSampleDataSources(categoryLayout, dataSources, logic):
        """A button a data set; pressed, it calls ``customDownloader(source)``."""
        import qt

        for sources in dataSources.values():
            for source in sources:
                button = qt.QToolButton()
                # Slicer shows the first node's name where a data set has no name of its own.
                button.setText(source.sampleDescription or source.nodeNames[0])
                button.name = f"{source.sampleName}PushButton"
                categoryLayout.addWidget(button)
                if source.customDownloader:
                    button.connect("clicked()", lambda s=source: s.customDownloader(s))


def _oneOf(loadFileTypes, loadFileType):
    """``loadFileType`` is the former name of ``loadFileTypes``."""
    if loadFileType is not None and loadFileTypes is not None:
        msg = "loadFileType and loadFileTypes cannot be specified at the same time"
        raise ValueError(msg)
    return loadFileType if loadFileTypes is None else loadFileTypes
