package schema1_test

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"time"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/manifest/schema1"
)

func ExampleParse() {
	raw := []byte(`{
   "schemaVersion": 1,
   "name": "app/hello",
   "tag": "v1",
   "architecture": "amd64",
   "fsLayers": [{"blobSum": "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4"}],
   "history": [{"v1Compatibility": "{\"id\":\"e45a5af57b00862e5ef5782a9925979a02ba2b12dff832fd0991335f4a11e5c5\",\"throwaway\":true}"}]
}`)
	m, err := schema1.Parse(schema1.MediaType, raw)
	if err != nil {
		fmt.Println(err)
		return
	}
	chain, err := m.Chain()
	fmt.Println(m.Name, m.Tag, len(chain), chain[0].V1.Throwaway, err)
	fmt.Println(m.Check(schema1.Target{Ref: berth.Reference{Repository: "app/hello", Tag: "v2"}}))
	_, err = m.Verify()
	fmt.Println(err)
	// Output:
	// app/hello v1 1 true <nil>
	// tag invalid: the manifest is tagged "v1", not "v2"
	// manifest invalid: it is not signed
}

func ExampleGenerate() {
	config := []byte(`{"architecture":"amd64","os":"linux","config":{"Cmd":["sh"]},` +
		`"rootfs":{"type":"layers","diff_ids":["sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"]},` +
		`"history":[{"created_by":"ADD / "},{"created_by":"CMD sh","empty_layer":true}]}`)
	desc := manifest.Descriptor("application/vnd.docker.container.image.v1+json", config)
	image := schema1.Image{
		MediaType: manifest.MediaTypeDockerManifest,
		Manifest: fmt.Appendf(nil, `{"schemaVersion":2,"config":{"mediaType":%q,"digest":%q,"size":%d},"layers":[`+
			`{"mediaType":"application/vnd.docker.image.rootfs.diff.tar","digest":"sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef","size":1024}]}`,
			desc.MediaType, desc.Digest, desc.Size),
		Config: config,
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		fmt.Println(err)
		return
	}
	target := schema1.Target{Ref: berth.Reference{Repository: "library/hello", Tag: "v1"}, LibraryNamespace: "library"}
	m, err := schema1.Generate(image, target, key, time.Now())
	if err != nil {
		fmt.Println(err)
		return
	}
	keys, err := m.Verify()
	fmt.Println(m.Name, m.Tag, m.MediaType(), len(keys), err)
	for _, layer := range m.Layers {
		fmt.Println(layer.BlobSum.Encoded()[:12], layer.V1.ID[:12], layer.V1.Throwaway)
	}
	// Output:
	// hello v1 application/vnd.docker.distribution.manifest.v1+prettyjws 1 <nil>
	// 5f70bf18a086 1974559469fa false
	// a3ed95caeb02 c13065a3f339 true
}
