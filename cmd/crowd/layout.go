package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/ocilayout"
)

// asConfig is the layout's name as the environment of what serves it has it.
func (r *round) asConfig() []byte {
	return []byte(`{"layout":"` + base64.StdEncoding.EncodeToString([]byte(r.layout)) + `"`)
}

// judgeLayout demands that all is there that was told to be pushed, in index.json and by the index.
func (r *round) judgeLayout(ctx context.Context) error {
	named, err := r.named()
	if err != nil {
		return err
	}
	layout, err := ocilayout.Open(ctx, r.layout, nil)
	if err != nil {
		return err
	}
	defer layout.Close()
	var errs []error
	for _, t := range r.tools {
		for name, digest := range t.told() {
			errs = append(errs, judgeImage(ctx, layout, name, digest))
			if !r.kill && named[name] != digest {
				errs = append(errs, fmt.Errorf("%s: index.json has %q, and %s was pushed", name, named[name], digest))
			}
		}
	}
	report, err := layout.Fsck(ctx, nil)
	for _, p := range report.Problems {
		errs = append(errs, fmt.Errorf("fsck: %s %s %s", p.Kind, p.Digest, p.Detail))
	}
	return errors.Join(append(errs, err)...)
}

func judgeImage(ctx context.Context, layout *ocilayout.Layout, name, digest string) error {
	ref, err := berth.ParseReference(name)
	if err != nil {
		return err
	}
	repo, err := layout.Repository(ref.Repository)
	if err != nil {
		return err
	}
	desc, err := repo.Resolve(ctx, ref.Tag)
	if err != nil {
		return fmt.Errorf("%s was pushed, and is lost: %w", name, err)
	}
	if string(desc.Digest) != digest {
		return fmt.Errorf("%s is %s, and %s was pushed", name, desc.Digest, digest)
	}
	return nil
}

// named are the tags that index.json names.
func (r *round) named() (map[string]string, error) {
	data, err := os.ReadFile(filepath.Join(r.layout, v1.ImageIndexFile))
	named := map[string]string{}
	if r.kill && errors.Is(err, os.ErrNotExist) {
		return named, nil // nobody has come so far
	}
	var index v1.Index
	if err == nil {
		err = json.Unmarshal(data, &index)
	}
	if err != nil {
		return nil, err
	}
	for _, desc := range index.Manifests {
		if name := desc.Annotations[v1.AnnotationRefName]; name != "" {
			named[name] = string(desc.Digest)
		}
	}
	return named, nil
}
