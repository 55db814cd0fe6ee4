import { fileURLToPath } from 'node:url'
import { build } from 'rolldown'

/** Writes a TypeScript program with all it imports to one file, which starts in a third of the time: for programs that run hundreds of times. */
export async function bundled(program: URL, file: string): Promise<string> {
  await build({ input: fileURLToPath(program), platform: 'node', output: { file, format: 'esm' }, logLevel: 'silent' })
  return file
}
