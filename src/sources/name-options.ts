import * as z from 'zod'
import { AltName, CommonName, type Names, requestedNames } from '../core/names.ts'

/** Options of every source that asks for names. */
export const NameOptions = {
  commonName: CommonName.optional(),
  altNames: z
    .array(AltName)
    .default([])
    .describe('Further names: DNS names, IP addresses, URIs and email addresses; without commonName at least one'),
  excludeCnFromSans: z.boolean().default(false).describe('Leaves the common name out of the subjectAltName'),
}

interface NameOptions {
  readonly commonName?: string | undefined
  readonly altNames: readonly string[]
  readonly excludeCnFromSans: boolean
}

/** For `refine`: a certificate for nobody makes no sense. */
export const hasNames = ({ commonName, altNames }: NameOptions): boolean =>
  commonName !== undefined || altNames.length > 0
export const NO_NAMES = { error: 'needs commonName or altNames' }

export const namesFrom = ({ commonName, altNames, excludeCnFromSans }: NameOptions): Names =>
  requestedNames({ commonName, altNames, excludeCnFromSans })
