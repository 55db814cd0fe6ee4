import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as z from 'zod'
import { CERTIFICATE_ANNOTATIONS, PodAnnotations } from '../../src/injector/annotations.ts'
import { EQUIVALENTS } from '../../src/injector/vault-k8s-table.ts'
import { ROOT } from '../packages.ts'
import { code, table } from './table.ts'

const PAGE = 'docs/kubernetes.md'
const blockOf = (name: string) => new RegExp(`(?<=<!-- ${name}:begin -->\\n).*(?=<!-- ${name}:end -->)`, 's')

/** docs/kubernetes.md with the tables of annotations written anew between their markers. */
export async function renderKubernetes(): Promise<string> {
  const page = await readFile(join(ROOT, PAGE), 'utf8')
  const tables = { annotations: `${certificateTable()}\n\n${podTable()}\n`, 'vault-annotations': `${vaultTable()}\n` }
  return Object.entries(tables).reduce((text, [name, content]) => {
    if (!blockOf(name).test(text)) throw new Error(`${PAGE} has lost its markers <!-- ${name}:begin --> and end`)
    return text.replace(blockOf(name), () => content)
  }, page)
}

const vaultTable = () =>
  table(
    ['vault.hashicorp.com/', 'certferry.io/', ''],
    Object.entries(EQUIVALENTS).map(([name, { becomes, note = '', refused }]) => [
      code(name),
      becomes === undefined ? (refused ? 'refused' : 'ignored') : code(becomes),
      note,
    ]),
  )

const certificateTable = () =>
  table(
    ['One certificate', 'Meaning'],
    Object.entries(CERTIFICATE_ANNOTATIONS).map(([name, meaning]) => [code(`${name}.NAME`), meaning]),
  )

const podTable = () =>
  table(
    ['The whole pod', 'Default', 'Meaning'],
    Object.entries(
      Schema.parse(z.toJSONSchema(PodAnnotations, { io: 'input', unrepresentable: 'any' })).properties,
    ).map(([name, { default: preset, description }]) => [
      code(name),
      preset === undefined ? '' : code(preset),
      description,
    ]),
  )

const Schema = z.object({
  properties: z.record(z.string(), z.object({ default: z.string().optional(), description: z.string() })),
})
