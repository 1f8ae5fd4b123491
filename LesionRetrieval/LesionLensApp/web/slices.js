/* What NiiVue's slices are painted with: the voxels of one CT, and of one map over it, as they came.

   NiiVue itself takes a volume through a picture of all its voxels, anew for every window, every map and every opacity. That costs
   a computer without a graphics card many seconds for a chest CT. So it is given a frame: a volume of 2 x 2 x 2 voxels that
   fills the same place, by which it lays out its slices. The voxels go to the graphics side once, and a slice shader (NiiVue's
   setCustomSliceShader) looks them up where a slice is painted. A window, an opacity, a cut are numbers of that shader.

   const painter = new SlicePainter(nv);              an attached Niivue
   await painter.setVolume({data: Int16Array, dims, ijkToRAS});          of another CT; null takes it away
   painter.setMap({data: Uint8Array, dims, ijkToRAS, lowest: 38, colormap: "inferno"});       null takes it away
   painter.setLook({windowHU, opacity});              0: the map is not seen
   painter.dims;                                      voxels along R, A, S (the nearest axes of the lattice) */
"use strict";

(() => {
  const CT_UNIT = 12, MAP_UNIT = 13, COLORS_UNIT = 14; // NiiVue uses those below; these only for a tool that we have not
  const SLAB_BYTES = 8 * 1024 ** 2;
  const SHADER = `#version 300 es
precision highp int;
precision highp float;
uniform highp sampler3D ct;
uniform highp sampler3D heat;
uniform highp sampler2D colors;
uniform mat4 ctOfFrac;
uniform mat4 heatOfFrac;
uniform vec2 windowHU;
uniform float heatOpacity;
uniform float heatLowest;
in vec3 texPos;
out vec4 color;
void main() {
  float hu = texture(ct, (ctOfFrac * vec4(texPos, 1.0)).xyz).r;
  float grey = clamp((hu - windowHU.x) / (windowHU.y - windowHU.x), 0.0, 1.0);
  color = vec4(vec3(grey), 1.0);
  if (heatOpacity <= 0.0) return;
  vec3 at = (heatOfFrac * vec4(texPos, 1.0)).xyz;
  if (any(lessThan(at, vec3(0.0))) || any(greaterThan(at, vec3(1.0)))) return;
  float heatHere = texture(heat, at).r;
  if (heatHere < heatLowest) return;
  vec3 paint = texture(colors, vec2((heatHere - heatLowest) / (1.0 - heatLowest), 0.5)).rgb;
  color.rgb = mix(color.rgb, paint, heatOpacity);
}`;

  /* --- half floats: 16 bits that a graphics card interpolates; whole HU up to 2048, a step of 16 at the end of int16 */

  let halves = null;

  function halfOf(value) {
    if (value === 0) return 0;
    const sign = value < 0 ? 0x8000 : 0;
    const size = Math.abs(value), exponent = Math.floor(Math.log2(size));
    const steps = Math.round(size / 2 ** (exponent - 10)); // 1024 ... 2048: the next power
    return sign | ((exponent + 15 << 10) + steps - 1024);
  }

  function asHalves(data) {
    halves ||= Uint16Array.from({ length: 65536 }, (_, bits) => halfOf(bits << 16 >> 16));
    const unsigned = new Uint16Array(data.buffer, data.byteOffset, data.length);
    const found = new Uint16Array(data.length);
    for (let at = 0; at < found.length; at++) found[at] = halves[unsigned[at]];
    return found;
  }

  /* --- matrices: four rows of four */

  const product = (a, b) => a.map((row) => [0, 1, 2, 3].map((column) => row.reduce((sum, each, at) => sum + each * b[at][column], 0)));

  function inverse([a, b, c]) {
    const cross = (u, v) => [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    const size = [0, 1, 2].reduce((sum, at) => sum + a[at] * cross(b, c)[at], 0);
    const columns = [cross(b, c), cross(c, a), cross(a, b)];
    const rows = [0, 1, 2].map((row) => columns.map((column) => column[row] / size));
    return [...rows.map((row) => [...row, -row.reduce((sum, each, at) => sum + each * [a, b, c][at][3], 0)]), [0, 0, 0, 1]];
  }

  /* RAS -> where it lies in a texture, 0 ... 1 from the outer edge of the first voxel to that of the last. */
  function textureOfRAS({ dims, ijkToRAS }) {
    const scale = dims.map((count, row) => [0, 1, 2].map((column) => (row === column ? 1 / count : 0)));
    return product([...scale.map((row, at) => [...row, 0.5 / dims[at]]), [0, 0, 0, 1]], inverse(ijkToRAS));
  }

  /* The lattice of 2 x 2 x 2 voxels that fills the same place. */
  function frameOf({ dims, ijkToRAS }) {
    const rows = ijkToRAS.slice(0, 3).map((row) => {
      const axes = dims.map((count, axis) => row[axis] * count / 2);
      const corner = row[3] - (row[0] + row[1] + row[2]) / 2;
      return [...axes, corner + (axes[0] + axes[1] + axes[2]) / 2];
    });
    return [...rows, [0, 0, 0, 1]];
  }

  class SlicePainter {
    constructor(nv) {
      this._nv = nv;
      this._ct = this._map = null;
      nv.setCustomSliceShader(SHADER);
      this._shader = nv.customSliceShader;
      const { gl } = nv;
      this._ctTexture = this._texture(gl.TEXTURE_3D, CT_UNIT, "ct");
      this._mapTexture = this._texture(gl.TEXTURE_3D, MAP_UNIT, "heat");
      this._colorTexture = this._texture(gl.TEXTURE_2D, COLORS_UNIT, "colors");
      this.setMap(null);
    }

    async setVolume(volume) {
      const nv = this._nv, { gl } = nv;
      for (const shown of [...nv.volumes].reverse()) nv.removeVolume(shown);
      this._ct = null;
      this.setMap(null);
      this._ctTexture = this._fresh(this._ctTexture, gl.TEXTURE_3D, CT_UNIT);
      if (!volume) return;
      const most = gl.getParameter(gl.MAX_3D_TEXTURE_SIZE);
      if (Math.max(...volume.dims) > most) {
        throw new Error(`The CT has ${volume.dims.join(" × ")} voxels, and this browser shows up to ${most} along an axis; crop it first.`);
      }
      this._upload(volume.dims, asHalves(volume.data));
      nv.addVolume(await this._frame(volume));
      this._ct = volume;
      const fracToRAS = nv.volumes[0].frac2mm; // by columns
      this._fracToRAS = [0, 1, 2, 3].map((row) => [0, 1, 2, 3].map((column) => fracToRAS[4 * column + row]));
      this.dims = nv.volumes[0].permRAS.slice(0, 3).map((axis) => volume.dims[Math.abs(axis) - 1]);
      this._matrix("ctOfFrac", volume);
    }

    setMap(map) {
      const { gl } = this._nv;
      this._map = map;
      this._mapTexture = this._fresh(this._mapTexture, gl.TEXTURE_3D, MAP_UNIT);
      if (!map) return this._number("heatOpacity", 0);
      const size = [...map.dims];
      gl.texStorage3D(gl.TEXTURE_3D, 1, gl.R8, ...size);
      gl.texSubImage3D(gl.TEXTURE_3D, 0, 0, 0, 0, ...size, gl.RED, gl.UNSIGNED_BYTE, map.data);
      this._colorTexture = this._fresh(this._colorTexture, gl.TEXTURE_2D, COLORS_UNIT);
      gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA8, 256, 1);
      const colors = Uint8Array.from(this._nv.colormap(map.colormap || "inferno"));
      gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, 256, 1, gl.RGBA, gl.UNSIGNED_BYTE, colors);
      this._number("heatLowest", (map.lowest ?? 38) / 255);
      return this._matrix("heatOfFrac", map);
    }

    setLook({ windowHU, opacity }) {
      const { gl } = this._nv;
      this._shader.use(gl);
      gl.uniform2f(this._shader.uniforms.windowHU, ...windowHU);
      gl.uniform1f(this._shader.uniforms.heatOpacity, this._map ? opacity : 0);
    }

    /* --- inside */

    _texture(kind, unit, name) {
      const { gl } = this._nv;
      this._shader.use(gl);
      gl.uniform1i(this._shader.uniforms[name], unit);
      return this._fresh(null, kind, unit);
    }

    /* An empty texture in the place of another; its unit is the active one then. */
    _fresh(texture, kind, unit) {
      const { gl } = this._nv;
      if (texture) gl.deleteTexture(texture);
      const made = gl.createTexture();
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(kind, made);
      for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(kind, name, gl.LINEAR);
      for (const name of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T, gl.TEXTURE_WRAP_R]) gl.texParameteri(kind, name, gl.CLAMP_TO_EDGE);
      gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
      return made;
    }

    _upload([width, height, depth], voxels) {
      const { gl } = this._nv;
      while (gl.getError()) /* what was before */;
      gl.texStorage3D(gl.TEXTURE_3D, 1, gl.R16F, width, height, depth);
      const slices = Math.max(Math.floor(SLAB_BYTES / (2 * width * height)), 1);
      for (let first = 0; first < depth; first += slices) {
        const count = Math.min(slices, depth - first);
        const slab = voxels.subarray(first * width * height, (first + count) * width * height);
        gl.texSubImage3D(gl.TEXTURE_3D, 0, 0, 0, first, width, height, count, gl.RED, gl.HALF_FLOAT, slab);
      }
      if (gl.getError()) throw new Error("The CT does not fit into the memory that this browser has for pictures; crop it first.");
    }

    async _frame(volume) {
      const { NVImage } = globalThis.niivue;
      const rows = frameOf(volume);
      const spacing = [0, 1, 2].map((axis) => Math.hypot(...[0, 1, 2].map((row) => rows[row][axis])));
      const bytes = NVImage.createNiftiArray([2, 2, 2], spacing, rows.flat(), 2, Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 1));
      return NVImage.new(bytes.buffer, "frame.nii", "gray", 1, null, 0, 1);
    }

    _matrix(name, lattice) {
      const rows = product(textureOfRAS(lattice), this._fracToRAS);
      this._shader.use(this._nv.gl);
      this._nv.gl.uniformMatrix4fv(this._shader.uniforms[name], true, rows.flat());
    }

    _number(name, value) {
      this._shader.use(this._nv.gl);
      this._nv.gl.uniform1f(this._shader.uniforms[name], value);
    }
  }

  globalThis.SlicePainter = SlicePainter;
})();
