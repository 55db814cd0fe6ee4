import { type DirectorySet, INCLUDE_FILE, type OutputFile } from './output.ts'

/** `tls.conf` of layout nginx-include for the generation `name`, with its OCSP response where there is one: relative to nothing that can be swapped. */
export function includeFile(
  { layout, seenAs, files }: DirectorySet,
  name: string,
): (Omit<OutputFile, 'role'> & { readonly role: 'include' }) | undefined {
  const find = (role: OutputFile['role']) => files.find((file) => file.role === role && file.shown === undefined)
  const [certificate, key] = [find('certificate') ?? find('combined'), find('key') ?? find('combined')]
  const staple = find('staple')
  if (layout !== 'nginx-include' || !certificate || !key) return undefined
  const path = (file: OutputFile) => `"${seenAs}/${name}/${file.name}"`
  const text = [
    '# Written by certferry. Both paths lie in one generation, so the key always belongs to the certificate.',
    `ssl_certificate ${path(certificate)};`,
    `ssl_certificate_key ${path(key)};`,
    ...(staple ? ['ssl_stapling on;', `ssl_stapling_file ${path(staple)};`] : []),
    '',
  ].join('\n')
  const { mode, uid, gid } = certificate
  return { name: INCLUDE_FILE, role: 'include', content: Buffer.from(text), mode, uid, gid }
}
