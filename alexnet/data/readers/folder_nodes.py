"""The folders of a data set as a tree, with the number of images in each."""


class FolderNode:
    """A folder and the images in it.

    Attributes:
        path: Relative to the data set; "" for its root.
        own: How many images are directly in it.
        total: How many are in it and below.
        children: `{name: FolderNode}`, including empty folders.
    """

    def __init__(self, path):
        self.path = path
        self.name = path.rpartition("/")[2]
        self.own = self.total = 0
        self.children = {}

    @classmethod
    def of(cls, listing):
        """The root of the tree of a `FileIndex`."""
        nodes = {"": cls("")}

        def at(path):
            if path not in nodes:
                nodes[path] = cls(path)
                above, _, name = path.rpartition("/")
                at(above).children[name] = nodes[path]
            return nodes[path]

        for directory, count in zip(listing.directories, listing.counts.tolist(), strict=True):
            at(directory).own = count
        for node in sorted(nodes.values(), key=lambda node: -node.path.count("/") - bool(node.path)):
            node.total = node.own + sum(child.total for child in node.children.values())
        return nodes[""]

    def filled(self):
        """The children with images in or below them, sorted by name."""
        return [self.children[name] for name in sorted(self.children) if self.children[name].total]

    def find(self, path):
        """The node at a relative path, None if there is none."""
        node = self
        for name in path.strip("/").split("/"):
            node = node.children.get(name) if node and name not in ("", ".") else node
        return node

    def below(self):
        """This node and all below."""
        yield self
        for child in self.children.values():
            yield from child.below()
