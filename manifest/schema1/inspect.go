package schema1

import "github.com/berthoci/berth/manifest"

// Inspect is manifest.Inspect for a manifest of schema 1. The digest can be that of the payload, which
// is reported, or that of the signed file. Signatures are not verified: that the bytes are those that
// were asked for is a matter of their digest.
//
// The report is of what Convert makes of the manifest: repeats are collapsed, layers that changed no
// file are left out, and what schema 1 says in the topmost v1 JSON is read as a config. It has no
// sizes and no media types of layers, which schema 1 does not say, and f.Config is ignored. Name and
// tag are the manifest's own where f.Ref has none.
//
// Errors: those of Parse, of Manifest.Chain and of manifest.NewReport; berth.ErrManifestInvalid where
// the topmost v1 JSON is no config.
func Inspect(f manifest.Fetched) (*manifest.Report, error) {
	m, err := Parse(f.Manifest.Descriptor.MediaType, f.Manifest.Raw)
	if err != nil {
		return nil, err
	}
	r, err := manifest.NewReport(f, m.Payload())
	if err != nil {
		return nil, err
	}
	r.Name, r.Tag = firstOf(r.Name, m.Name), firstOf(r.Tag, m.Tag)
	r.Digest, r.MediaType = m.Digest(), m.MediaType()
	if err := m.report(r); err != nil {
		return nil, err
	}
	return r, nil
}

// report fills in what the layers say.
func (m *Manifest) report(r *manifest.Report) error {
	linked, err := m.Chain()
	if err != nil {
		return err
	}
	c := conversion{manifest: m, mediaType: manifest.MediaTypeDockerManifest}
	for _, layer := range linked {
		c.history = append(c.history, historyOf(layer.V1))
		if !layer.V1.Throwaway {
			r.Layers = append(r.Layers, manifest.ReportedLayer{Digest: layer.BlobSum})
		}
	}
	top := linked[len(linked)-1]
	config, err := c.config(top)
	if err != nil {
		return invalid("the config of layer %s: %v", top.V1.ID, err)
	}
	return r.ReadConfig(config)
}
