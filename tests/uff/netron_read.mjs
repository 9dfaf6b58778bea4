// SPDX-License-Identifier: Apache-2.0
// node netron_read.mjs NETRON_FOLDER FILE.uff: what Netron's own reader finds in a UFF file, as JSON.
// (The folder holds copies of Netron's scripts and a package.json that says they are modules.)
import * as fs from 'node:fs';
import * as path from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, file] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(path.join(folder, name)).href);
await load('base.js'); // gives BigInt the toNumber() that the reader calls
const { BinaryReader } = await load('protobuf.js');
const { ModelFactory } = await load('uff.js');
const bytes = new Uint8Array(fs.readFileSync(file));
const types = JSON.parse(fs.readFileSync(path.join(folder, 'uff-metadata.json'), 'utf-8'));
const context = {
    identifier: path.basename(file),
    tags: async () => BinaryReader.open(bytes).signature(),
    set: (type) => { context.type = type; return type; },
    require: async (name) => (await load(`${name}.js`)),
    read: async () => BinaryReader.open(bytes),
    metadata: async () => ({ type: (name) => types.find((type) => type.name === name) }),
};
const factory = new ModelFactory();
if (await factory.match(context) !== 'uff.pb') {
    throw new Error('Netron does not take it for a UFF file');
}
const model = await factory.open(context);
const [graph] = model.modules;
const node = (one) => ({
    name: one.name,
    operation: one.type.name,
    inputs: one.inputs.flatMap((argument) => argument.value.map((value) => value.name)),
    constants: one.inputs.flatMap((argument) => argument.value)
        .filter((value) => value.initializer)
        .map((value) => ({
            name: value.name,
            type: value.initializer.type.toString(),
            bytes: Buffer.from(value.initializer.values).toString('base64'),
        })),
    fields: Object.fromEntries(one.attributes.map((field) => [field.name, field.value])),
});
process.stdout.write(JSON.stringify({
    format: model.format,
    imports: model.imports,
    inputs: graph.inputs.map((argument) => argument.name),
    outputs: graph.outputs.map((argument) => argument.value[0].name),
    nodes: graph.nodes.map(node),
}, (key, value) => (typeof value === 'bigint' ? Number(value) : value)));
