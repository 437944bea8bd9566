import { expect, test } from "vitest";
import { colourAt, readableOn } from "../draw/theme";

test("a scale has its ends and what lies between", () => {
  expect(colourAt("viridis", 0)).toEqual([68, 1, 84]);
  expect(colourAt("viridis", 7)).toEqual([253, 231, 37]);
  expect(colourAt("blue-white-orange", 0.5)).toEqual([242, 242, 242]);
});

test("text on a colour is black or white", () => {
  expect(readableOn([253, 231, 37])).toBe("#000000");
  expect(readableOn([68, 1, 84])).toBe("#ffffff");
});
