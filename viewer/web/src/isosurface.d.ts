/** What is used of the package, which has no types of its own. */
declare module "isosurface" {
    type Triple = [number, number, number];

    /** The surface where the potential is 0, at whole numbers below the dimensions. */
    function marchingCubes(
        dims: Triple,
        potential: (x: number, y: number, z: number) => number,
    ): { positions: Triple[]; cells: Triple[] };
}
