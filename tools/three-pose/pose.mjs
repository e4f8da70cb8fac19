// Prints, as JSON, the names of a rig's bones and its vertices at rest and at a time of its clip, as three.js poses them:
// node pose.mjs FILE SECONDS [FOLDER with node_modules/three]
// No picture is drawn, so that neither a browser nor a GPU is needed.
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const [file, seconds, folder = path.dirname(fileURLToPath(import.meta.url))] = process.argv.slice(2);
const package_ = path.join(path.resolve(folder), "node_modules", "three");
const THREE = await import(pathToFileURL(path.join(package_, "build", "three.module.js")));
const { GLTFLoader } = await import(pathToFileURL(path.join(package_, "examples", "jsm", "loaders", "GLTFLoader.js")));

// What the loader of textures asks a browser for.
globalThis.self = globalThis;
globalThis.createImageBitmap = async () => ({ width: 1, height: 1, close() {} });
globalThis.ProgressEvent ??= class {};

const data = fs.readFileSync(file);
const buffer = data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength);
const gltf = await new GLTFLoader().parseAsync(buffer, "");
let mesh;
gltf.scene.traverse((node) => {
  if (node.isSkinnedMesh) mesh = node;
});

function vertices() {
  gltf.scene.updateMatrixWorld(true);
  const place = new THREE.Vector3();
  const out = [];
  for (let k = 0; k < mesh.geometry.attributes.position.count; k++) {
    mesh.getVertexPosition(k, place);
    out.push(place.applyMatrix4(mesh.matrixWorld).toArray());
  }
  return out;
}

const rest = vertices();
const mixer = new THREE.AnimationMixer(gltf.scene);
for (const clip of gltf.animations) mixer.clipAction(clip).play();
mixer.setTime(Number(seconds));
const report = { bones: mesh.skeleton.bones.map((bone) => bone.name), rest, posed: vertices() };
process.stdout.write(JSON.stringify(report));
