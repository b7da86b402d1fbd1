/** Windows that radiologists look at CT in: from black to white, in Hounsfield units. */
export const CT_WINDOWS: [string, [number, number]][] = [
    ["Brain", [0, 80]],
    ["Abdomen", [-160, 240]],
    ["Lung", [-1350, 150]],
    ["Bone", [-500, 1300]],
];
