import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { bundleCli } from '../build.ts'
import { packagesOf } from '../notices.ts'
import { directPackages, productionPackages, ROOT } from '../packages.ts'

const BLOCK = /(?<=<!-- packages:begin -->\n).*(?=<!-- packages:end -->)/s

/** README.md with what certferry is made of written anew between its markers. */
export async function renderReadme(): Promise<string> {
  const readme = await readFile(join(ROOT, 'README.md'), 'utf8')
  const [block] = BLOCK.exec(readme) ?? []
  if (block === undefined)
    throw new Error('README.md has lost the markers <!-- packages:begin --> and <!-- packages:end -->')
  const { bytes, bundled } = await measureBundle()
  const size = megabytes(bytes, block)
  return readme.replace(
    BLOCK,
    `Production dependencies: ${directPackages().length} direct, ${productionPackages().length} in all. What ships is one bundle of ${size} MB with code of ${bundled} of them.\n`,
  )
}

async function measureBundle() {
  const folder = await mkdtemp(join(tmpdir(), 'certferry-readme-'))
  try {
    const chunks = await bundleCli(folder)
    return {
      bytes: chunks.reduce((sum, { code }) => sum + Buffer.byteLength(code), 0),
      bundled: packagesOf(chunks.flatMap(({ moduleIds }) => moduleIds)).length,
    }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** What is stated stays until it is a tenth off: not every change of the code is to touch the README. */
function megabytes(bytes: number, block: string): string {
  const [, stated] = /(\d+\.\d) MB/.exec(block) ?? []
  const isRight = stated !== undefined && Math.abs(Number(stated) * 1e6 - bytes) <= bytes / 10
  return isRight ? stated : (bytes / 1e6).toFixed(1)
}
