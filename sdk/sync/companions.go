package sync

import (
	"context"
	"errors"
	"strings"

	"github.com/berthoci/berth"
)

const (
	// maxAsked is up to how many images of a repository are asked for what belongs to them one by one, where the repository's tags
	// are far away, and may be many.
	maxAsked = 8
	// companionPrefix is how their tags begin.
	companionPrefix = "sha256-"
)

// companions finds what belongs to images by the convention of cosign: the tag "sha256-HEX.sig" is the signature of an image, and
// "att" and "sbom" are its attestations and its bill of material.
type companions struct {
	*maker
	images map[string]int             // of a repository
	taken  map[string]bool            // REPOSITORY:TAG
	listed map[string]map[string]bool // the tags of repositories that were listed
}

func companionKinds() []string { return []string{"sig", "att", "sbom"} }

// withCompanions adds the tags that stand for what belongs to images.
func (m *maker) withCompanions(ctx context.Context, all []chosen) ([]chosen, error) {
	c := &companions{m, map[string]int{}, map[string]bool{}, map[string]map[string]bool{}}
	for _, image := range all {
		c.images[image.repository]++
		c.taken[image.repository+":"+image.tag] = true
	}
	var more []chosen
	for _, image := range all {
		some, err := c.of(ctx, image)
		if err != nil {
			return nil, err
		}
		more = append(more, some...)
	}
	more, err := resolveAll(ctx, m.from, more)
	return append(all, more...), err
}

// of are the tags that may belong to an image.
func (c *companions) of(ctx context.Context, image chosen) (some []chosen, err error) {
	tags := c.listed[image.repository]
	if tags == nil && (c.source == "" || c.images[image.repository] > maxAsked) {
		if tags, err = c.list(ctx, image.repository); err != nil {
			return nil, err
		}
		c.listed[image.repository] = tags
	}
	for _, kind := range companionKinds() {
		tag := strings.Replace(string(image.desc.Digest), ":", "-", 1) + "." + kind
		name := image.repository + ":" + tag
		if !c.taken[name] && (tags == nil || tags[tag]) {
			c.taken[name] = true
			some = append(some, chosen{repository: image.repository, tag: tag})
		}
	}
	return some, nil
}

// list are the tags that may stand for what belongs to an image. Not every registry lists tags in order, as the layout does.
func (c *companions) list(ctx context.Context, repository string) (map[string]bool, error) {
	repo, err := c.from.Repository(repository)
	if err != nil {
		return nil, err
	}
	after := companionPrefix
	if c.source != "" {
		after = ""
	}
	all := map[string]bool{}
	for tag, err := range repo.Tags(ctx, after) {
		if errors.Is(err, berth.ErrNameUnknown) {
			break
		}
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(tag, companionPrefix) {
			all[tag] = true
		} else if c.source == "" {
			break
		}
	}
	return all, nil
}
