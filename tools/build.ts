import { execFile } from 'node:child_process'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { build } from 'rolldown'
import { leaveOut } from './left-out.ts'
import { noticesOf } from './notices.ts'

const ROOT = join(import.meta.dirname, '..')

/** What keeps the bundle small. undici asks for the name, and without it brings a second parser of HTTP that is still tried out. */
export const LIGHT = { transform: { define: { esbuildDetection: 'true' } }, plugins: [leaveOut] }

/**
 * Bundles src/cli.ts and what it needs into `dir`: `cli.cjs`, with a chunk for each lazy import. One CommonJS file starts in half the
 * time that the separate modules take.
 */
export async function bundleCli(dir: string) {
  const { output } = await build({
    cwd: ROOT,
    input: { cli: 'src/cli.ts' },
    platform: 'node',
    ...LIGHT,
    output: {
      dir,
      format: 'cjs',
      minify: true,
      // One character beyond Latin-1 makes Node hold the whole file in twice the memory.
      charset: 'ascii',
      entryFileNames: '[name].cjs',
      chunkFileNames: 'chunks/[name]-[hash].cjs',
    },
  })
  return output.filter((part) => part.type === 'chunk')
}

/** Makes `certferry/client` in `dir`, for programs of others: one module, readable, with its types. Nothing of node_modules goes in. */
export async function bundleClient(dir: string) {
  const { output } = await build({
    cwd: ROOT,
    input: { index: 'src/client/index.ts' },
    platform: 'node',
    output: { dir, format: 'esm', entryFileNames: '[name].js' },
  })
  const compiler = join(ROOT, 'node_modules/.bin/tsc')
  await promisify(execFile)(compiler, ['-p', join(ROOT, 'tools/client-types.json'), '--outDir', dir])
  return output.filter((part) => part.type === 'chunk')
}

/** Makes `dist` what is published: the bundle, with the licences of all that went in, and the client for other programs. */
export async function buildDist(dist: string) {
  await rm(dist, { recursive: true, force: true })
  const chunks = await bundleCli(dist)
  await writeFile(join(dist, 'THIRD-PARTY-NOTICES'), noticesOf(chunks.flatMap(({ moduleIds }) => moduleIds)))
  await bundleClient(join(dist, 'client'))
  return chunks
}

async function main() {
  const started = performance.now()
  const chunks = await buildDist(join(ROOT, 'dist'))
  for (const { fileName, code } of chunks.toSorted((a, b) => Number(b.isEntry) - Number(a.isEntry))) {
    console.log(`${kibibytes(code).padStart(6)} KiB  ${join('dist', fileName)}`)
  }
  console.log(`built in ${((performance.now() - started) / 1000).toFixed(1)} s`)
}

function kibibytes(code: string): string {
  return String(Math.round(Buffer.byteLength(code) / 1024))
}

if (import.meta.main) await main()
