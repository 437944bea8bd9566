// Numbers packed as base64: 16-bit integers between two ends, or 16-bit floats.

const STEPS = 65534;

/** Return numbers of which 0 is the lowest, 65534 the highest, and 65535 none: NaN. */
export function unpacked(text: string, low: number, high: number): Float32Array {
  const bytes = atob(text);
  const numbers = new Float32Array(bytes.length / 2);
  for (let i = 0; i < numbers.length; i++) {
    const level = bytes.charCodeAt(2 * i) | (bytes.charCodeAt(2 * i + 1) << 8);
    numbers[i] = level > STEPS ? Number.NaN : low + (level / STEPS) * (high - low);
  }
  return numbers;
}

/** Return numbers that are 16-bit floats: a sign, five bits of exponent, ten of fraction. */
export function halves(text: string): Float32Array {
  const bytes = atob(text);
  const numbers = new Float32Array(bytes.length / 2);
  for (let i = 0; i < numbers.length; i++) {
    const bits = bytes.charCodeAt(2 * i) | (bytes.charCodeAt(2 * i + 1) << 8);
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    const special = fraction ? Number.NaN : Number.POSITIVE_INFINITY;
    const size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24;
    numbers[i] = (bits >> 15 ? -1 : 1) * (exponent === 31 ? special : size);
  }
  return numbers;
}
