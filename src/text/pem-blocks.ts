/** The PEM blocks (RFC 7468 §2) in a text, each with its markers and a line break at its end; what stands between them is left out. */
export function pemBlocks(text: string): string[] {
  const blocks: string[] = []
  let open: { readonly label: string; readonly lines: string[] } | undefined
  for (const line of text.split('\n')) {
    const trimmed = line.trim()
    const [, begin] = /^-----BEGIN ([^-]+)-----$/.exec(trimmed) ?? []
    if (begin !== undefined) open = { label: begin, lines: [] }
    open?.lines.push(trimmed)
    if (open && trimmed === `-----END ${open.label}-----`) {
      blocks.push(`${open.lines.join('\n')}\n`)
      open = undefined
    }
  }
  return blocks
}

export const labelOf = (block: string): string => /^-----BEGIN ([^-]+)-----/.exec(block)?.[1] ?? ''
